"""Videos, cameras and streams through OpenCV's FFmpeg: probing, reading frame by frame, writing.

Writing keeps size and frame rate. Measured on 768 x 432 pixels, 2 cores: MPEG-4 takes 4 ms a frame and 3.8 kB (40 dB),
VP8 47 ms, VP9 239 ms; OpenCV's wheels hold no H.264 encoder. OpenCV cuts odd sides to even ones whenever FFmpeg
encodes. Its own Motion JPEG writer keeps them, but supports whole frame rates only, so its header is corrected.

Letters: H W pixels.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from detect.errors import InputError
from detect.runtime.files import atomic_path
from detect.runtime.logs import LOGGER

if TYPE_CHECKING:
    from detect.inference.inputs import Source

STALL_SECONDS = 10.0
"""A stream without a frame for this time is given up."""

USUAL_FPS = 25.0
"""Frame rate of a video that states none, or an impossible one; FFmpeg assumes the same."""

MIN_FPS = 0.01
"""Frame rate of a written video with a lower one, as of each 25,000th frame; OpenCV refuses 0.001."""

MAX_MPEG4_PX = 8190
"""Maximum side of FFmpeg's MPEG-4 encoder."""

SUFFIXES = (".mp4", ".avi")
"""Suffixes of written videos."""


class VideoError(InputError):
    """A video without a readable frame."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep OpenCV's own messages off standard error; errors have one line of ours."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read at the first use of FFmpeg; -8 is silence
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def opencv_path(path: Path) -> str:
    """Return a path for OpenCV: absolute, so that ``a:b.mp4`` is not taken for an address.

    Raises:
        VideoError: the name is not UTF-8, with which OpenCV's bindings crash.
    """
    whole = os.path.abspath(path)
    try:
        whole.encode()
    except UnicodeEncodeError:
        raise VideoError(f"{path}: the name of a video must be valid UTF-8; rename it") from None
    return whole


def is_video_file(path: Path) -> bool:
    """True if FFmpeg finds a frame in a file, whatever its name."""
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


@dataclass(frozen=True)
class Clip:
    """Properties of a video that are known before it is read.

    Args:
        fps: frames per second, of those that are used.
        num_frames: number of frames that are used, by the file's header; None where it is unknown.
        is_live: a camera or a stream, whose frames have the time of their arrival.
    """

    fps: float
    num_frames: int | None
    is_live: bool


class Video:
    """An open video, camera or stream. Its frames are read once.

    Args:
        source: of kind ``file`` or ``live``.
        every: use each N-th frame only.

    Raises:
        VideoError: it cannot be opened.
    """

    def __init__(self, source: Source, every: int = 1) -> None:
        self._name = source.name
        self._every = every
        with quiet():
            self._capture = _open_capture(source)
        stated = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._stated = int(stated) if 0 < stated < 2**31 else None
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.clip = Clip(
            fps=(fps if 0 < fps <= 1000 else USUAL_FPS) / every,
            num_frames=None if self._stated is None else -(-self._stated // every),
            is_live=source.kind == "live" and self._stated is None,
        )

    def frames(self) -> Iterator[tuple[int, float, np.ndarray]]:
        """Read to the end and close; warn of an end that comes too early.

        Yields:
            The frame's number in the video, from 0; its time in seconds, strictly increasing; and (H, W, 3) uint8 RGB,
            with the video's rotation applied.

        Raises:
            VideoError: no frame can be read.
        """
        step_s = 1 / (self.clip.fps * self._every)
        count, last_s = 0, -step_s
        start = waiting_since = time.monotonic()
        try:
            while self._grab():
                now = time.monotonic()
                start = start if count else now
                seconds = now - start if self.clip.is_live else self._position_s()
                # Damaged files and raw streams have times that stand still or go back.
                last_s = seconds if seconds > last_s else last_s + step_s
                if count % self._every == 0:
                    is_decoded, image_bgr = self._capture.retrieve()
                    if is_decoded:
                        yield count, last_s, cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)
                count += 1
                waiting_since = time.monotonic()
        finally:
            self._capture.release()
        self._report_end(count, waited_s=time.monotonic() - waiting_since)

    def _grab(self) -> bool:
        """Go to the next frame without decoding it into pixels."""
        with quiet():
            return bool(self._capture.grab())

    def _position_s(self) -> float:
        return float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000

    def _report_end(self, count: int, waited_s: float) -> None:
        stall = f"gave no frame for {waited_s:.0f} s" if waited_s > 0.9 * STALL_SECONDS else ""
        if not count:
            raise VideoError(f"{self._name}: {stall or 'holds no frame that can be read'}")
        if stall:
            LOGGER.warning("%s: %s and was given up after %d frames", self._name, stall, count)
        elif self._stated is not None and count < self._stated - 1:  # counts of some formats are rounded durations
            LOGGER.warning("%s: ended after %d of %d frames; is it cut off?", self._name, count, self._stated)
        elif self.clip.is_live:
            LOGGER.warning("%s: ended after %d frames", self._name, count)


def _open_capture(source: Source) -> cv2.VideoCapture:
    started = time.monotonic()
    if isinstance(source.origin, int):
        capture = cv2.VideoCapture(source.origin)
        reason = "there is no such camera, or it is in use"
    else:
        place = opencv_path(source.path) if source.path else str(source.origin)
        milliseconds = int(1000 * STALL_SECONDS)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
        capture = cv2.VideoCapture(place, cv2.CAP_FFMPEG, limits)
        reason = (
            "is no video, or is cut off or damaged" if source.path else "nobody answers, or what is there is no video"
        )
    if not capture.isOpened():
        waited_s = time.monotonic() - started
        raise VideoError(f"{source.name}: cannot be opened{f' within {waited_s:.0f} s' * (waited_s > 1)}: {reason}")
    return capture


def video_suffix(image_hw: tuple[int, int]) -> str:
    """``.mp4`` (MPEG-4) where it keeps the size, that is for even sides; otherwise ``.avi`` (Motion JPEG)."""
    return ".mp4" if not any(side % 2 or side > MAX_MPEG4_PX for side in image_hw) else ".avi"


@contextmanager
def writing_video(
    path: Path, image_hw: tuple[int, int], fps: float
) -> Iterator[Callable[[np.ndarray, float | None], None]]:
    """Write a video under a temporary name, which is renamed to ``path`` when the block ends.

    Args:
        path: with the suffix of ``video_suffix``.
        image_hw: height and width.
        fps: frames per second, above 0 and at most 1000; at least ``MIN_FPS`` are written.

    Yields:
        A function that adds one (H, W, 3) uint8 RGB image, scaled if a stream has changed its size. With a time in
        seconds the image is repeated up to that time, so that a camera's frames play as fast as they arrived.

    Raises:
        InputError: a video of this size cannot be written, or the path is not UTF-8.
        OSError: not all of it could be written.
    """
    height, width = image_hw
    count, fps = 0, max(fps, MIN_FPS)
    with atomic_path(path) as temporary:
        writer = _open_writer(temporary, (width, height), fps)

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


def _open_writer(path: Path, size_wh: tuple[int, int], fps: float) -> cv2.VideoWriter:
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
