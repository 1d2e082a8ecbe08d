"""Reading videos, cameras and streams through OpenCV's FFmpeg, frame by frame.

Letters: H W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from detect.inference.sources import Source
from detect.inference.video_probe import VideoError, opencv_path, quiet
from detect.runtime.logs import LOGGER

STALL_SECONDS = 10.0
"""A stream that gives no frame for so long is given up."""

USUAL_FPS = 25.0
"""The frame rate of what states none, or an impossible one; FFmpeg assumes the same."""


@dataclass(frozen=True)
class Clip:
    """What is known of a video before it is read.

    Args:
        fps: frames per second, of those that are looked at.
        num_frames: how many will be looked at, as the file's header has it; None where nobody knows.
        is_live: a camera or a stream, whose frames have the time at which they came.
    """

    fps: float
    num_frames: int | None
    is_live: bool


class Video:
    """An opened video, camera or stream. Its frames are read once.

    Args:
        source: of kind ``file`` or ``live``.
        every: only each so-many-th frame is looked at.

    Raises:
        VideoError: it cannot be opened.
    """

    def __init__(self, source: Source, every: int = 1) -> None:
        self._name = source.name
        self._every = every
        with quiet():
            self._capture = _opened(source)
        stated = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._stated = int(stated) if 0 < stated < 2**31 else None
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.clip = Clip(
            fps=(fps if 0 < fps <= 1000 else USUAL_FPS) / every,
            num_frames=None if self._stated is None else -(-self._stated // every),
            is_live=source.kind == "live" and self._stated is None,
        )
        """What is known of it."""

    def frames(self) -> Iterator[tuple[int, float, np.ndarray]]:
        """Read to the end, which is reported when it comes too early, and close.

        Yields:
            The frame's number in the video, from 0; its time in seconds, which rises; and (H, W, 3) uint8 RGB, turned
            as the video's rotation says.

        Raises:
            VideoError: not one frame can be read.
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
        """Go on to the next frame, which need not be decoded into pixels yet."""
        with quiet():
            return bool(self._capture.grab())

    def _position_s(self) -> float:
        return float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000

    def _report_end(self, count: int, waited_s: float) -> None:
        what = f"gave no frame for {waited_s:.0f} s" if waited_s > 0.9 * STALL_SECONDS else ""
        if not count:
            raise VideoError(f"{self._name}: {what or 'holds no frame that can be read'}")
        if what:
            LOGGER.warning("%s: %s and was given up after %d frames", self._name, what, count)
        elif self._stated is not None and count < self._stated - 1:  # counts of some formats are rounded durations
            LOGGER.warning("%s: ended after %d of %d frames; is it cut off?", self._name, count, self._stated)
        elif self.clip.is_live:
            LOGGER.warning("%s: ended after %d frames", self._name, count)


def _opened(source: Source) -> cv2.VideoCapture:
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
