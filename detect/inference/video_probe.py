"""Asking OpenCV's FFmpeg for a file, without its own messages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from detect.errors import InputError


class VideoError(InputError):
    """A video that gives no frame at all, told in one line."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep OpenCV's own messages off standard error; what matters in them is said in one line of ours."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read at the first use of FFmpeg; -8 is silence
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def opencv_path(path: Path) -> str:
    """A path for OpenCV: absolute, so that ``a:b.mp4`` is not taken for an address.

    Raises:
        VideoError: its name is not UTF-8, with which OpenCV's bindings crash.
    """
    whole = os.path.abspath(path)
    try:
        whole.encode()
    except UnicodeEncodeError:
        raise VideoError(f"{path}: the name of a video must be valid UTF-8; rename it") from None
    return whole


def is_video_file(path: Path) -> bool:
    """Whether FFmpeg finds a frame in a file, whatever its name."""
    try:
        place = opencv_path(path)
    except VideoError:
        return False
    with quiet():
        capture = cv2.VideoCapture(place, cv2.CAP_FFMPEG)
        try:
            return bool(capture.isOpened() and capture.grab())
        finally:
            capture.release()
