"""A real server on a free port of this machine, and requests to it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from detect.inference.detector import Detector
from detect.serving.app import Limits, build_app
from detect.serving.predictions import ServedDetector
from detect.serving.server import listen, make_server
from tests.inference.onnx_files import write_detections

ROWS = [[4.0, 8.0, 20.0, 40.0, 0.9, 2.0], [30.0, 10.0, 50.0, 30.0, 0.3, 0.0]]
"""What the hand-made detector finds in each image of 64 x 64 px: left, top, right, bottom, score, class."""
BYTES = {"content-type": "application/octet-stream"}


class Answer(NamedTuple):
    """An answer of the server; ``content`` is parsed where it is JSON."""

    status: int
    headers: Mapping[str, str]
    content: Any

    @property
    def complaint(self) -> str:
        """The one line of an error."""
        assert list(self.content) == ["error"], self
        assert "\n" not in self.content["error"], self
        return self.content["error"]


def served(folder: Path) -> ServedDetector:
    """The hand-made detector, an exported file."""
    path = write_detections(folder / "model.onnx", ROWS)
    return ServedDetector(Detector(path, device="cpu"), path)


@contextmanager
def serving(detector: ServedDetector, limits: Limits | None = None, names: tuple[str, ...] = ()) -> Iterator[int]:
    """The port of a server that runs during the block."""
    server = make_server(build_app(detector, limits or Limits(), names))
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join()


def ask(port: int, path: str, body: bytes | None = None, method: str = "", **headers: str) -> Answer:
    """Send one request; ``content_type="image/png"`` and the like are headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, BYTES | named)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    is_json = response.headers["content-type"] == "application/json"
    return Answer(response.status, response.headers, json.loads(content) if is_json else content)


def png(height: int = 64, width: int = 64) -> bytes:
    """A grey image file."""
    return cv2.imencode(".png", np.full((height, width, 3), 90, np.uint8))[1].tobytes()
