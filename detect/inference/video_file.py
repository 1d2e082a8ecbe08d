"""Writing a video with OpenCV so that it keeps its size and frame rate, and appears only when it is whole.

Measured on 768 x 432 pixels, 2 cores: MPEG-4 takes 4 ms a frame and 3.8 kB (40 dB), VP8 47 ms, VP9 239 ms; OpenCV's
wheels hold no H.264 encoder. OpenCV cuts odd sides to even ones whenever FFmpeg encodes. Its own Motion JPEG writer
keeps them, but knows whole frame rates only, hence the header is mended.

Letters: H W pixels.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from detect.errors import InputError
from detect.inference.video_probe import opencv_path, quiet
from detect.runtime.files import atomic_path

MAX_MPEG4_PX = 8190
"""FFmpeg's MPEG-4 encoder refuses more."""

SUFFIXES = (".mp4", ".avi")
"""Of the videos that are written."""


def video_suffix(image_hw: tuple[int, int]) -> str:
    """``.mp4`` (MPEG-4) where it keeps the size, which it does of even sides; otherwise ``.avi`` (Motion JPEG)."""
    return ".mp4" if not any(side % 2 or side > MAX_MPEG4_PX for side in image_hw) else ".avi"


@contextmanager
def writing_video(
    path: Path, image_hw: tuple[int, int], fps: float
) -> Iterator[Callable[[np.ndarray, float | None], None]]:
    """A video under a temporary name, which takes the place of ``path`` when the block ends.

    Args:
        path: with the suffix that ``video_suffix`` gives.
        image_hw: height and width.
        fps: frames per second, above 0 and at most 1000.

    Yields:
        Adds one (H, W, 3) uint8 RGB image; of another size, to which a stream may change, it is scaled. With a time in
        seconds it is added as often as it takes to get there, so that a camera's frames, which come when they come,
        play as fast as they came.

    Raises:
        InputError: a video of this size cannot be written, or the path is not UTF-8.
        OSError: not all of it could be written.
    """
    height, width = image_hw
    count = 0
    with atomic_path(path) as temporary:
        writer = _opened(temporary, (width, height), fps)

        def add(image_rgb: np.ndarray, time_s: float | None) -> None:
            nonlocal count
            if image_rgb.shape[:2] != image_hw:
                image_rgb = cv2.resize(image_rgb, (width, height))
            image_bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
            for _ in range(1 if time_s is None else max(1, round(time_s * fps) + 1 - count)):
                writer.write(image_bgr)
                count += 1

        try:
            yield add
        finally:
            writer.release()
        if path.suffix == ".avi":
            _state_frame_rate(temporary, fps)
        if _stated_frames(temporary) != count:  # OpenCV reports no failed write
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _opened(path: Path, size_wh: tuple[int, int], fps: float) -> cv2.VideoWriter:
    name, code = opencv_path(path), cv2.VideoWriter.fourcc
    with quiet():
        if path.suffix == ".mp4":
            # MPEG-4 states the rate as a fraction whose parts are below 65536.
            decimals = 3 if fps < 65 else 2 if fps < 655 else 0
            writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, code(*"mp4v"), round(fps, decimals), size_wh)
        else:
            writer = cv2.VideoWriter(name, cv2.CAP_OPENCV_MJPEG, code(*"MJPG"), 25, size_wh)
    if not writer.isOpened():
        raise InputError(f"{path.parent}: OpenCV cannot write a video of {size_wh[0]} x {size_wh[1]} pixels here")
    return writer


def _state_frame_rate(avi: Path, fps: float) -> None:
    """Write the frame rate into the header (AVI RIFF reference), whose fields have fixed places in OpenCV's files."""
    with avi.open("rb+") as file:
        header = file.read(136)
        if header[24:28] != b"avih" or header[100:104] != b"strh":  # a write failed
            return
        file.seek(32)
        file.write(struct.pack("<I", round(1_000_000 / fps)))  # dwMicroSecPerFrame
        file.seek(128)
        file.write(struct.pack("<2I", 1000, round(1000 * fps)))  # dwScale, dwRate


def _stated_frames(path: Path) -> int:
    with quiet():
        capture = cv2.VideoCapture(opencv_path(path), cv2.CAP_FFMPEG)
        try:
            return int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            capture.release()
