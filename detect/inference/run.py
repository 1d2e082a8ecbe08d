"""Prediction runs: detect or classify, write, and say in one line each what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from detect.errors import InputError
from detect.evaluation.classification import top_entries
from detect.inference.class_outputs import ClassWriter
from detect.inference.classifier import Classifier
from detect.inference.detector import Detector
from detect.inference.frames import FoundFrame, counted, read_frames
from detect.inference.outputs import OutputOptions, PredictionWriter
from detect.inference.rows import to_record
from detect.inference.sources import Source, image_paths
from detect.inference.window import Window
from detect.runtime.distributed import is_main_process, shard
from detect.runtime.interruption import stop_requests
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


Tell = Callable[[dict[str, Any]], None]
"""Takes the record of an image or a frame."""


def detect_sources(
    detector: Detector,
    sources: Sequence[Source],
    folder: Path,
    outputs: OutputOptions,
    window: Window | None = None,
    tell: Tell | None = None,
    **options: Any,
) -> Iterator[str]:
    """Detect in sources and write what is found; Ctrl-C and SIGTERM end the work between two frames.

    Args:
        detector: the model.
        sources: images and videos; processes of torchrun share them out.
        folder: of everything that is written.
        outputs: what is written beside the drawn images and videos.
        window: shows each frame.
        tell: takes ``to_record`` of each frame.
        options: of ``Detector.stream``.

    Yields:
        A line for each image and each video, and at the end one for each kind of output.
    """
    own = shard(sources)
    frames: Iterable[FoundFrame] = detector.stream(own, **options) if own else []
    if tell is not None:
        frames = _told(frames, tell)
    with stop_requests() as stop:
        with PredictionWriter(folder, sources, outputs) as writer:
            yield from write_found(frames, writer, window, is_over=lambda: bool(stop))
        if is_main_process():
            yield from writer.summary()


def _told(frames: Iterable[FoundFrame], tell: Tell) -> Iterator[FoundFrame]:
    for found in frames:
        tell(to_record(found))
        yield found


def classify_sources(
    classifier: Classifier,
    sources: Sequence[Source],
    folder: Path,
    json: bool = False,
    tell: Tell | None = None,
    **sizes: Any,
) -> Iterator[str]:
    """Classify image files and draw what they show.

    Args:
        classifier: the model.
        sources: images; processes of torchrun share them out.
        folder: of everything that is written.
        json: write ``predictions.json`` as well.
        tell: takes the file's name and its most probable classes.
        sizes: of ``classify_files``.

    Yields:
        A line for each image, and at the end one for each kind of output.
    """
    paths = image_paths(sources)
    writer = ClassWriter(folder, paths, json=json)
    own = shard(paths)
    for prediction in classify_files(classifier, own, **sizes) if own else ():
        writer.add(prediction.path, prediction.image_rgb, prediction.classification)
        if tell is not None:
            tell({"file_name": str(prediction.path), "top5": top_entries(prediction.classification)})
        yield prediction.line()
    places = writer.finish()
    if is_main_process():
        yield from places


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
