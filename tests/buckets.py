"""A server of buckets for tests: moto in a process of its own, behind a proxy with faults."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

PYTHON = Path(sys.prefix, "buckets", "bin", "python")  # `make test` makes it: tests/requirements-buckets.txt
ADDRESS = "s3://bucket/lab"
_SERVE = """
import logging, sys
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # until the tests end, however they do
"""
_SLOW_S = 0.5
_SIGNED = "AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/us-east-1/s3/aws4_request, Signature=0"
_BUSY = {"busy": 503, "denied": 403}


@dataclass
class Buckets:
    """What clients asked for; `fault` may answer in place of the server, by method, path and number.

    busy: 503; denied: 403; slow: after a pause; lost: done, but without a response; cut: half of it.
    """

    address: str = ""
    requests: list[str] = field(default_factory=list)
    fault: Callable[[str, str, int], str | None] = lambda method, path, number: None

    def count(self, method: str, part: str = "") -> int:
        return sum(each.startswith(method) and part in each for each in self.requests)

    def reset(self) -> None:
        """Remove all objects, and make the bucket of `ADDRESS`."""
        self.fault = lambda method, path, number: None
        for path, method in (("/moto-api/reset", "POST"), ("/bucket", "PUT")):
            asked = urllib.request.Request(self.address + path, data=b"", method=method)
            urllib.request.urlopen(asked).close()
        self.requests.clear()


def _as_s3(headers: Message) -> dict[str, str]:
    """Return headers as S3 has them; what obstore sends to gs:// differs in these two."""
    if headers.get("Authorization", "").startswith("AWS4"):
        return dict(headers)
    if_absent = {"If-None-Match": "*"} if headers["x-goog-if-generation-match"] == "0" else {}
    return {**dict(headers), "authorization": _SIGNED, **if_absent}


class _Server(ThreadingHTTPServer):
    def get_request(self) -> Any:
        try:
            return super().get_request()
        except (RuntimeError, UserWarning) as error:  # a late connection, during a test without sockets
            raise OSError("not accepted") from error


@contextmanager
def serve_buckets() -> Iterator[Buckets]:
    """Start the server and the proxy; both end with the block."""
    process = subprocess.Popen([PYTHON, "-c", _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    behind = int(process.stdout.readline())
    buckets = Buckets()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = urlsplit(self.path)
            buckets.requests.append(f"{self.command} {unquote(asked.path)}?{asked.query}")
            fault = buckets.fault(self.command, unquote(asked.path), len(buckets.requests))
            if fault in _BUSY:
                self.answer(_BUSY[fault], [("Content-Length", "0")], b"")
                return
            if fault == "slow":
                time.sleep(_SLOW_S)
            server = http.client.HTTPConnection("127.0.0.1", behind, timeout=60)
            server.request(self.command, self.path, body, _as_s3(self.headers))
            found = server.getresponse()
            data, headers = found.read(), found.getheaders()
            server.close()
            if fault == "lost":
                self.close_connection = True
                return
            if self.command != "HEAD" and found.status != 304:
                headers = [each for each in headers if each[0].lower() not in _HOPS]
                headers.append(("Content-Length", str(len(data))))
            self.answer(found.status, headers, data[: len(data) // 2] if fault == "cut" else data)
            self.close_connection |= fault == "cut"

        def answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_request

        def log_message(self, *_: Any) -> None:
            pass

    proxy = _Server(("127.0.0.1", 0), Proxy)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    buckets.address = f"http://127.0.0.1:{proxy.server_port}"
    try:
        yield buckets
    finally:
        proxy.shutdown()
        proxy.server_close()
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


_HOPS = {"content-length", "transfer-encoding", "connection"}
