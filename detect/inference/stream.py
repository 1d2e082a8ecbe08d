"""Detection over sources of any length, a batch in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from detect.data.pixel_values import PLAIN, ReadSettings
from detect.errors import InputError
from detect.evaluation.predict import PredictSettings
from detect.inference.frames import FoundFrame, Frame, read_frames
from detect.inference.sources import expand_sources
from detect.inference.tracking import WEAK_SCORE, Tracks
from detect.structures import Detections


def detect_frames(
    predict: Callable[..., Any],
    source: Any,
    *,
    reading: ReadSettings = PLAIN,
    every: int,
    batch_size: int,
    track: bool,
    conf: float,
    **options: Any,
) -> Iterator[FoundFrame]:
    """What ``Detector.stream`` does.

    Args:
        predict: the method of ``Detector``.
        source: as ``expand_sources`` takes it.
        reading: how images are read.
        every: of a video only each so-many-th frame is looked at.
        batch_size: frames that go through the network together, at most.
        track: number the objects of videos.
        conf: least score of a detection; tracked objects stay in down to ``WEAK_SCORE``.
        options: others of ``predict``.

    Returns:
        An iterator over the frames that could be read, in order.

    Raises:
        InputError: a value is outside its range, a source names nothing, or tracking is not possible.
    """
    for name, value in (("every", every), ("batch size", batch_size)):
        if value < 1:
            raise InputError(f"{name}: must be at least 1, found {value}")
    PredictSettings(score_threshold=conf)
    sources = expand_sources(source)
    if track and all(each.kind == "still" for each in sources):
        raise InputError("tracking needs a video, a camera or a stream; among images nothing can be followed")
    tracks = Tracks(conf) if track else None
    options |= {"conf": min(conf, WEAK_SCORE) if track else conf, "batch_size": batch_size}

    def found_frames() -> Iterator[FoundFrame]:
        frames = read_frames(sources, every, reading)
        while batch := list(islice(frames, batch_size)):
            for detections in predict([frame.image_rgb for frame in batch], **options):
                # What is handed over is let go of, so that it is not there while the next batch is read.
                yield _joined(batch.pop(0), detections, tracks)

    return found_frames()


def _joined(frame: Frame, detections: Detections, tracks: Tracks | None) -> FoundFrame:
    return FoundFrame(**vars(frame), detections=tracks.follow(frame, detections) if tracks else detections)
