"""A local server that speaks the part of the Hugging Face Hub's protocol that a push and a pull use."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    """Keeps the files of repositories in ``root``; every request is noted in ``asked``."""

    root: Path
    asked: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(f"POST {self.path.partition('?')[0]}")
        words = self.path.partition("?")[0].split("/")
        if self.path.startswith("/api/repos/create"):
            content = json.loads(body)
            name = f"{content.get('organization') or 'me'}/{content['name']}"
            (self.root / name).mkdir(parents=True, exist_ok=True)
            is_private = content.get("private") or content.get("visibility") == "private"  # by the client's version
            (self.root / name / ".visibility").write_text("private" if is_private else "public")
            self._answer({"url": f"http://{self.headers['Host']}/{name}", "id": name, "name": name})
        elif "preupload" in words:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif "commit" in words:
            name = "/".join(words[3:5])
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    (self.root / name / line["value"]["path"]).write_bytes(content)
            url = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
            self._answer({"success": True, "commitUrl": url, "commitOid": COMMIT, "hookOutput": ""})
        else:
            self._answer({"errors": [], "warnings": []})

    def do_HEAD(self) -> None:
        self._send_file(is_whole=False)

    def do_GET(self) -> None:
        self._send_file(is_whole=True)

    def _send_file(self, is_whole: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        words = self.path.split("/")
        path = self.root / "/".join(words[1:3]) / words[-1]
        if "resolve" not in words or not path.is_file():
            missing = "EntryNotFound" if path.parent.is_dir() else "RepoNotFound"
            self._answer({"error": "not found"}, 404, {"X-Error-Code": missing})
            return
        data = path.read_bytes()
        etag = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        self._write(200, data if is_whole else b"", {**headers, "Content-Length": str(len(data))})

    def _answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self._write(
            status, data, {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
        )

    def _write(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *words: Any) -> None:
        """Keep quiet."""


@contextmanager
def serving(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve ``root``; gives the address and the list of requests."""
    asked: list[str] = []
    handler = type("RootHandler", (Handler,), {"root": root, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
