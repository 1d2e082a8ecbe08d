"""Prediction runs: detect or classify, write, and say in one line each what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from detect.errors import InputError
from detect.inference.classifier import Classifier
from detect.inference.frames import FoundFrame, counted, read_frames
from detect.inference.outputs import PredictionWriter
from detect.inference.sources import Source
from detect.inference.window import Window
from detect.runtime.logs import LOGGER
from detect.runtime.progress import progress_bar
from detect.structures import Classification


@dataclass(frozen=True)
class FileClassification:
    """What a file shows.

    Args:
        path: the image.
        image_rgb: (H, W, 3) uint8.
        classification: of it.
    """

    path: Path
    image_rgb: np.ndarray
    classification: Classification

    def line(self) -> str:
        """The file and its five most probable classes, in one line."""
        found = ", ".join(f"{name} {score:.2f}" for name, score in self.classification.top(5))
        return " ".join(f"{self.path}: {found}".split())


def write_found(
    frames: Iterable[FoundFrame],
    writer: PredictionWriter,
    window: Window | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> Iterator[str]:
    """Write what was found in images and videos, with a progress bar for each video.

    Args:
        frames: what ``Detector.stream`` gives.
        writer: of the same sources.
        window: shows each; None for none. When it is closed, the run is over.
        is_over: asked after each frame whether the run is over.

    Yields:
        A line for each image and for each video.
    """

    def goes_on() -> bool:
        return not is_over() and (window is None or window.is_open)

    for (source, clip), group in groupby(_report_full(frames), key=lambda found: (found.source, found.clip)):
        total = clip and clip.num_frames
        with progress_bar(group, Path(source).name, total, unit=" frames", is_shown=clip is not None) as watched:
            yield _write_source(source, watched, writer, window, goes_on)
        if not goes_on():
            return


def _report_full(frames: Iterable[FoundFrame]) -> Iterator[FoundFrame]:
    """The frames; afterwards logs how many have as many detections as are kept of an image."""
    looked_at = full = most = 0
    try:
        for found in frames:
            looked_at += 1
            if found.detections.reached_limit:
                full, most = full + 1, max(most, len(found.detections))
            yield found
    finally:
        if full:
            LOGGER.warning(
                "%d of %d images reached the limit of %d detections and may have more objects; raise --max-det (of "
                "export for a file with suppression inside)",
                full,
                looked_at,
                most,
            )


def classify_files(
    classifier: Classifier, paths: Sequence[Path], batch_size: int = 1, image_size: int | None = None
) -> Iterator[FileClassification]:
    """Classify files, ``batch_size`` of them in memory at a time.

    Args:
        classifier: the model.
        paths: image files. Unreadable ones among several are skipped, reported one by one and counted at the end.
        batch_size: images that are read, and go through the network, together.
        image_size: of ``Classifier.predict``.

    Yields:
        A record for each readable file, in order.

    Raises:
        ImageError: the only file, or every file, is unreadable.
        InputError: an option is outside its range.
    """
    if batch_size < 1:
        raise InputError(f"batch size: must be at least 1, found {batch_size}")
    sources = [Source(str(path), "still", path) for path in paths]
    frames = read_frames(sources, reading=classifier.read_settings())
    while batch := list(islice(frames, batch_size)):
        images = [frame.image_rgb for frame in batch]
        found = classifier.predict(images, batch_size=batch_size, image_size=image_size)
        for frame, classification in zip(batch, found, strict=True):
            yield FileClassification(Path(frame.source), frame.image_rgb, classification)


def _write_source(
    source: str,
    group: Iterable[FoundFrame],
    writer: PredictionWriter,
    window: Window | None,
    goes_on: Callable[[], bool],
) -> str:
    """Write all that is of one source, as long as the run goes on, and say what it was in one line."""
    classes: Counter[str] = Counter()
    num_frames, is_video = 0, False
    for found in group:
        drawn = writer.add(found)
        classes.update(found.detections.class_names)
        num_frames, is_video = num_frames + 1, found.clip is not None
        if window is not None:
            window.show(drawn, wait=not is_video)
        if not goes_on():
            break
    frames = f"{num_frames} frames, " if is_video else ""
    return " ".join(f"{source}: {frames}{counted(classes)}".split())
