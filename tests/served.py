"""Servers on the loopback: of images, as servers in the wild behave (the path says how), and of buckets."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

HTML = b"<!DOCTYPE html><title>Sign in</title>"
DRIP_S = 0.05


class Site:
    """A running server: its address, the paths it was asked for, and the most requests it had at once."""

    def __init__(self, image: bytes) -> None:
        self.image = image
        self.asked: Counter[str] = Counter()
        self.n_now = self.n_most = 0
        self.lock = threading.Lock()
        self.address = ""

    def url(self, path: str) -> str:
        return self.address + path


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        with site.lock:
            site.asked[self.path] += 1
            site.n_now += 1
            site.n_most = max(site.n_most, site.n_now)
        try:
            with suppress(ConnectionError):
                self._answer(self.path.split("/")[1])
        finally:
            with site.lock:
                site.n_now -= 1

    def _answer(self, what: str) -> None:
        actions: dict[str, Callable[[], None]] = {
            "hop": lambda: self._send(302, headers={"Location": "/image/hopped.jpg"}),
            "loop": lambda: self._send(302, headers={"Location": self.path}),
            "leave": lambda: self._send(302, headers={"Location": "file:///etc/hostname"}),
            "html": lambda: self._send(200, HTML),
            "empty": lambda: self._send(200),
            "gone": lambda: self._send(404, HTML),
            "broken": lambda: self._send(200, self.site.image[: len(self.site.image) // 2]),
            "cut": lambda: self._send(200, self.site.image, n_bytes=len(self.site.image) + 9),
            "short": lambda: self._send(200, self.site.image, n_bytes=len(self.site.image) - 40),
            "declared": lambda: self._send(200, self.site.image, n_bytes=1 << 40),
            "endless": self._send_endlessly,
            "drip": self._drip,
            "drip-header": self._drip_header,
            "silent": lambda: time.sleep(2),
            "busy": self._busy,
            "away": lambda: self._send(503, headers={"Retry-After": "3600"}),
            "lingering": lambda: (time.sleep(0.05), self._send(200, self.site.image))[1],
        }
        actions.get(what, lambda: self._send(200, self.site.image))()

    def _send(
        self, code: int, body: bytes = b"", headers: dict[str, str] | None = None, n_bytes: int | None = None
    ) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "image/jpeg")  # whatever it is
        self.send_header("Content-Length", str(len(body) if n_bytes is None else n_bytes))
        self.end_headers()
        self.wfile.write(body)

    def _send_endlessly(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.site.image)
        while True:
            self.wfile.write(bytes(1 << 16))

    def _drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        for byte in self.site.image:
            self.wfile.write(bytes([byte]))
            time.sleep(DRIP_S)

    def _drip_header(self) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000:
            self.wfile.write(bytes([byte]))
            time.sleep(DRIP_S)

    def _busy(self) -> None:
        """Answer from the second time on; ask to wait a second before."""
        if self.site.asked[self.path] == 1:
            self._send(429, headers={"Retry-After": "1"})
        else:
            self._send(200, self.site.image)

    def log_message(self, *args: object) -> None:
        return None


class _BucketHandler(BaseHTTPRequestHandler):
    """The part of S3 that `store.objects` uses: put, put if absent, get, head, list; any credentials do."""

    protocol_version = "HTTP/1.1"
    folder: Path
    lock: threading.Lock

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        path = self._path()
        with self.lock:
            if self.headers.get("If-None-Match") == "*" and path.exists():
                self._send(412)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self._send(200, tag=_tag(data))

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.query:
            self._send(200, self._list(parse_qs(address.query).get("prefix", [""])[0]).encode())
        elif self._path().is_file():
            data = self._path().read_bytes()
            self._send(200, data, _tag(data))
        else:
            self._send(404)

    do_HEAD = do_GET

    def _path(self) -> Path:
        return self.folder / unquote(urlsplit(self.path).path).split("/", 2)[2]

    def _list(self, prefix: str) -> str:
        """Return the document that lists the objects below a prefix, all on one page."""
        found = []
        for path in sorted(self.folder.rglob("*")):
            key = path.relative_to(self.folder).as_posix()
            if path.is_file() and key.startswith(prefix):
                stat = f"<Size>{path.stat().st_size}</Size><ETag>{_tag(path.read_bytes())}</ETag>"
                time_ = "<LastModified>2020-01-01T00:00:00Z</LastModified>"
                found.append(f"<Contents><Key>{escape(key)}</Key>{stat}{time_}</Contents>")
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(found)}</ListBucketResult>"

    def _send(self, code: int, body: bytes = b"", tag: str = "") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
        if tag:
            self.send_header("ETag", tag)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        return None


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


@contextmanager
def serve_bucket(folder: Path) -> Iterator[str]:
    """Serve a folder as a bucket of any name; yield the address of the server."""
    handler = type("Handler", (_BucketHandler,), {"folder": folder, "lock": threading.Lock()})
    with _running(handler) as address:
        yield address


def bucket_settings(address: str) -> dict[str, str]:
    """Return the environment of clients of `serve_bucket`."""
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ENDPOINT_URL": address.rstrip("/"),
        "NO_PROXY": "127.0.0.1",
    }


@contextmanager
def serve(image: bytes) -> Iterator[Site]:
    """Run a server of images."""
    site = Site(image)
    with _running(type("Handler", (_Handler,), {"site": site})) as site.address:
        yield site


class _Server(ThreadingHTTPServer):
    block_on_close = False  # some answers never end

    def handle_error(self, *args: object) -> None:
        """Ignore clients that were killed."""


@contextmanager
def _running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a server on a free port of the loopback; yield its address."""
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
