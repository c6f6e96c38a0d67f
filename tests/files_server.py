"""A web server on loopback that serves bytes as badly as it is told to."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Served:
    """A file: ``cuts`` are the bytes after which each of the next answers ends, ``busy`` the next statuses."""

    content: bytes
    etag: str | None = '"1"'
    modified: str | None = None
    ranges: bool = True
    login: str = ""
    length: bool = True
    lying_etag: str | None = None  # of partial answers
    redirect: str | None = None
    cuts: list[int] = field(default_factory=list)
    busy: list[tuple[int, str | None]] = field(default_factory=list)
    hold: Callable[[], object] = lambda: None


class FilesServer(http.server.ThreadingHTTPServer):
    """Serves ``files`` by path; ``requests`` are the paths and headers that it was asked with."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, Served] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []

    def url(self, path: str, login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.server_port}{path}"

    def serve(self, path: str, content: bytes, **more: Any) -> str:
        """Serve a file, and return its URL."""
        self.files[path] = Served(content, **more)
        return self.url(path)

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that has gone."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FilesServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append((self.path, dict(self.headers)))
        served = self.server.files.get(path)
        if served is None:
            self.send_error(404)
            return
        served.hold()
        wanted = "Basic " + base64.b64encode(served.login.encode()).decode()
        if served.login and self.headers.get("Authorization") != wanted:
            self.send_error(401)
        elif served.busy:
            self._busy(*served.busy.pop(0))
        elif served.redirect:
            self.send_response(302)
            self.send_header("Location", served.redirect)
            self.end_headers()
        elif self._is_known(served):
            self.send_response(304)
            self.end_headers()
        else:
            self._content(served)

    def _is_known(self, served: Served) -> bool:
        told = (self.headers.get("If-None-Match"), self.headers.get("If-Modified-Since"))
        return any(
            one and one == other for one, other in zip(told, (served.etag, served.modified), strict=True)
        )

    def _busy(self, status: int, retry_after: str | None) -> None:
        self.send_response(status)
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _content(self, served: Served) -> None:
        begin, asked = 0, self.headers.get("Range")
        same = self.headers.get("If-Range") in (served.etag, served.modified, served.lying_etag)
        if served.ranges and asked and same:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
        size = len(served.content)
        if begin and begin >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        if served.etag:
            self.send_header("ETag", served.etag)
        if served.modified:
            self.send_header("Last-Modified", served.modified)
        if served.length:
            self.send_header("Content-Length", str(size - begin))
        self.end_headers()
        end = begin + served.cuts.pop(0) if served.cuts else size
        self.wfile.write(served.content[begin:end])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def files() -> Iterator[FilesServer]:
    with FilesServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
