"""A web server on the loopback that behaves as servers in the wild do; what it does is said by the path."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


@contextmanager
def serve(image: bytes) -> Iterator[Site]:
    """Run a server on a free port of the loopback."""
    site = Site(image)
    handler = type("Handler", (_Handler,), {"site": site})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.block_on_close = False  # some of its answers never end
        site.address = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield site
        server.shutdown()
        thread.join()
