"""A server of files as anybody has one, and one as awkward as some are."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Headers with which a browser gives a page several threads."""
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Of the files that the server knows."""


class _Handler(SimpleHTTPRequestHandler):
    """Files of a folder with further headers; types that a server does not know are octet-stream."""

    def __init__(self, *args, headers: Mapping[str, str], **options) -> None:
        self.further = headers
        super().__init__(*args, **options)

    def end_headers(self) -> None:
        for key, value in self.further.items():
            self.send_header(key, value)
        super().end_headers()

    def guess_type(self, path):  # the standard library would ask the system's table too
        return TYPES.get(Path(path).suffix, "application/octet-stream")

    def log_message(self, *args) -> None:
        pass


@contextmanager
def static_server(folder: Path, headers: Mapping[str, str] | None = None) -> Iterator[int]:
    """The port of a server of a folder's files that runs during the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder), headers=headers or {}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
