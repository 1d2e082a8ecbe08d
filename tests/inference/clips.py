"""Small videos, and a server that sends frames as a network camera does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np

HW = (48, 64)
"""Height and width of the frames."""


def gray(number: int) -> np.ndarray:
    """Frame ``number`` of every clip: (H, W, 3) uint8, of brightness 10 * number."""
    return np.full((*HW, 3), 10 * number, np.uint8)


def number_of(image_rgb: np.ndarray) -> int:
    """Which frame an image is; encoding changes its brightness by less than half a step."""
    return round(float(image_rgb.mean()) / 10)


def write_clip(path: Path, num_frames: int = 12, fps: float = 10.0) -> Path:
    """An MPEG-4 video, at most 25 frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), fps, HW[::-1])
    for number in range(num_frames):
        writer.write(gray(number))
    writer.release()
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    """Every frame of a video, as any player gets it: (H, W, 3) uint8 BGR."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = []
    while True:
        is_read, image_bgr = capture.read()
        if not is_read:
            return frames
        frames.append(image_bgr)


def rate_of(path: Path) -> float:
    """Frames per second, as the video states them."""
    return float(cv2.VideoCapture(str(path), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FPS))


@contextlib.contextmanager
def camera(num_frames: int, *, stalls: bool, seconds: float = 0.0) -> Iterator[str]:
    """A network camera on this machine (Motion JPEG over HTTP).

    Args:
        num_frames: what it sends.
        stalls: it says nothing more then, instead of hanging up.
        seconds: from one frame to the next.

    Yields:
        Its address.
    """
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with contextlib.suppress(OSError):  # the reader has gone
                for number in range(num_frames):
                    jpeg = cv2.imencode(".jpg", gray(number))[1].tobytes()
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                    done.wait(seconds)
            if stalls:
                done.wait(60)

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/live"
    finally:
        done.set()
        server.shutdown()
        server.server_close()
        thread.join()
