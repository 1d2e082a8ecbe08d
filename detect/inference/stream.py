"""Detection over sources of any length: frames one after the other, a batch in memory at a time, with tracking.

Tracking uses the library ``trackers`` (Roboflow, Apache-2.0).

Letters: H W pixels, N detections of a frame.

Source: Zhang et al., ByteTrack, ECCV 2022. A track begins with a detection of at least the minimum score; a weaker one,
which would be dropped otherwise, can continue it, so that an object that is half hidden keeps its number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from detect.data.animations import Animation
from detect.data.images import ImageError
from detect.data.pixel_values import MAX_PIXELS, PLAIN, ReadSettings
from detect.errors import InputError
from detect.evaluation.postprocess import PredictSettings
from detect.inference.inputs import Source, as_image
from detect.inference.sources import StreamSource, expand_sources
from detect.inference.video import Clip, Video, VideoError
from detect.runtime.logs import LOGGER
from detect.runtime.prefetch import prefetch
from detect.structures import Detections

WEAK_SCORE = 0.1
"""Minimum score of a detection that continues a track (section 3 of the paper)."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """An image, or a frame of a video, camera or stream.

    Args:
        source: the name of its source.
        image_rgb: (H, W, 3) uint8.
        index: the frame's number in its video, from 0; None for images.
        time_s: the frame's time in seconds from the start of its video; None for images.
        clip: properties of the video; None for images.
    """

    source: str
    image_rgb: np.ndarray
    index: int | None = None
    time_s: float | None = None
    clip: Clip | None = None


@dataclass(frozen=True, kw_only=True)
class FoundFrame(Frame):
    """A frame with its detections.

    Args:
        detections: in its pixels.
    """

    detections: Detections

    def line(self) -> str:
        """Source and number of objects of each class in one line."""
        return " ".join(f"{self.source}: {count_line(Counter(self.detections.class_names))}".split())


def count_line(classes: Counter[str]) -> str:
    """Number of objects of each class, the most frequent first: ``12 car, 1 bus``."""
    return ", ".join(f"{count} {name}" for name, count in classes.most_common()) or "nothing"


def detect_frames(
    predict: Callable[[list[np.ndarray], float], list[Detections]],
    source: StreamSource | Sequence[StreamSource],
    reading: ReadSettings = PLAIN,
    *,
    every: int,
    batch_size: int,
    conf: float,
    track: bool,
) -> Generator[FoundFrame, None, None]:
    """Detect the objects of all frames of sources that can be read, in order; see ``Detector.stream``.

    Frames are read in another thread, at most ``frames_ahead`` of them in advance.

    Args:
        predict: images and minimum score to detections.
        source: as for ``expand_sources``.
        reading: settings for reading images.
        every: of a video use each N-th frame only.
        batch_size: frames that are read, and given to ``predict``, together.
        conf: minimum score of a detection; tracked objects are kept down to ``WEAK_SCORE``.
        track: number the objects of videos.

    Raises:
        InputError: a value is outside its range, a source names nothing, or tracking is not possible.
    """
    for name, value in (("every", every), ("batch size", batch_size)):
        if value < 1:
            raise InputError(f"{name}: must be at least 1, found {value}")
    PredictSettings(score_threshold=conf)  # refuses it before anything is read
    sources = expand_sources(source)
    if track and all(each.kind == "still" for each in sources):
        raise InputError("tracking needs a video, a camera or a stream; among images nothing can be followed")
    tracks = Tracks(conf) if track else None
    lowest = min(conf, WEAK_SCORE) if track else conf

    def found_frames() -> Generator[FoundFrame, None, None]:
        with closing(_read_ahead(read_frames(sources, every, reading), reading, batch_size)) as frames:
            while batch := list(islice(frames, batch_size)):
                for detections in predict([frame.image_rgb for frame in batch], lowest):
                    # A frame that was given away is freed before the next batch is read.
                    yield _found_frame(batch.pop(0), detections, tracks)

    return found_frames()


def _read_ahead(
    frames: Generator[Frame, None, None], reading: ReadSettings, batch_size: int
) -> Generator[Frame, None, None]:
    """Number of frames that are read while others are predicted: one of images so large that they need tiles."""
    return frames if reading.max_pixels > MAX_PIXELS else prefetch(frames, frames_ahead(batch_size))


def frames_ahead(batch_size: int) -> int:
    """Maximum number of frames that one step of a run is ahead of the next: a batch, at least two."""
    return max(2, batch_size)


def _found_frame(frame: Frame, detections: Detections, tracks: Tracks | None) -> FoundFrame:
    return FoundFrame(**vars(frame), detections=tracks.follow(frame, detections) if tracks else detections)


def read_frames(
    sources: Sequence[Source], every: int = 1, reading: ReadSettings = PLAIN
) -> Generator[Frame, None, None]:
    """Read sources one after the other, one frame at a time.

    Args:
        sources: images and videos. An unreadable one among several is skipped, reported and counted at the end.
        every: of a video or an animation use each N-th frame only.
        reading: value range of more than 8 bits, and limit of pixels.

    Yields:
        A frame for each readable image, and those of each video and animation.

    Raises:
        ImageError: the only source, or every source, is unreadable.
        VideoError: the only source is a video and unreadable.
        InputError: an array is no image.
    """
    unreadable: list[InputError] = []
    for source in sources:
        try:
            yield from _frames_of(source, every, reading)
        except (ImageError, VideoError) as error:
            unreadable.append(error)
            if len(sources) > 1:
                LOGGER.warning("%s (skipped)", " ".join(str(error).split()))
    kind = "images" if all(source.kind == "still" for source in sources) else "sources"
    if unreadable and len(unreadable) == len(sources):
        if len(sources) == 1:
            raise unreadable[0]
        raise ImageError(f"none of the {len(sources)} {kind} could be read; the first: {unreadable[0]}")
    if unreadable:
        LOGGER.warning("%d of %d %s could not be read and were skipped", len(unreadable), len(sources), kind)


def _frames_of(source: Source, every: int, reading: ReadSettings) -> Iterator[Frame]:
    if source.kind == "still":
        yield Frame(source=source.name, image_rgb=as_image(source.origin, reading))
        return
    if source.kind == "animation":
        yield from _animation_frames(source, every, reading)
        return
    video = Video(source, every)
    for index, time_s, image_rgb in video.frames():
        yield Frame(source=source.name, image_rgb=image_rgb, index=index, time_s=time_s, clip=video.clip)


def _animation_frames(source: Source, every: int, reading: ReadSettings) -> Iterator[Frame]:
    """Frames of an animation, or pages of a TIFF."""
    assert source.path is not None, "it is a file"
    animation = Animation(source.path, reading)
    clip = Clip(animation.fps / every, -(-animation.num_frames // every), is_live=False)
    index = -1
    try:
        for index, (time_s, image_rgb) in enumerate(animation.frames()):
            if index % every == 0:
                yield Frame(source=source.name, image_rgb=image_rgb, index=index, time_s=time_s, clip=clip)
    except ImageError as error:
        if index < 0:
            raise
        LOGGER.warning("%s; it ended after %d of %d frames", error, index + 1, animation.num_frames)


class Tracks:
    """Tracks of the objects of one video after the other.

    Args:
        conf: minimum score of a detection that begins a track.

    Raises:
        InputError: the library is not installed.
    """

    def __init__(self, conf: float) -> None:
        try:
            import supervision
            import trackers
        except ModuleNotFoundError as error:
            raise InputError(f"tracking needs the package {error.name}: pip install 'detect-small[track]'") from None
        self._conf = conf
        self._tracker_class = trackers.ByteTrackTracker
        self._detections_class = supervision.Detections
        self._tracker: Any = None
        self._source: str | None = None

    def follow(self, frame: Frame, found: Detections) -> Detections:
        """Assign the detections of a frame to tracks.

        Args:
            frame: the next one of its video, or the first one of another; images have no tracks.
            found: detections in it, down to ``WEAK_SCORE``.

        Returns:
            Detections of at least ``conf`` and those that continue a track, with ``track_ids``. An object has its
            number from its second frame on; numbers begin with 1 in each video.
        """
        if frame.clip is None:
            return found.select(found.scores >= self._conf)
        if frame.source != self._source:
            self._source = frame.source
            self._tracker = self._tracker_class(
                frame_rate=frame.clip.fps,
                track_activation_threshold=self._conf,
                high_conf_det_threshold=self._conf,
            )
        # The library may return the rows in another order.
        given = self._detections_class(
            xyxy=found.boxes_xyxy_px, confidence=found.scores, data={"row": np.arange(len(found))}
        )
        tracked = self._tracker.update(given, timestamp=frame.time_s)
        track_ids = np.full(len(found), -1, np.int64)
        if len(tracked):
            track_ids[tracked.data["row"]] = np.where(tracked.tracker_id < 0, -1, tracked.tracker_id + 1)
        return replace(found, track_ids=track_ids).select((found.scores >= self._conf) | (track_ids > 0))
