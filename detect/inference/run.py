"""Prediction runs: detect or classify, write the files, and report each source in one line."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from detect.errors import InputError
from detect.inference.class_outputs import ClassWriter
from detect.inference.classifier import Classifier
from detect.inference.detector import Detector
from detect.inference.inputs import Source
from detect.inference.opening import open_network
from detect.inference.outputs import OutputOptions, PredictionWriter
from detect.inference.rows import to_record
from detect.inference.sources import image_paths
from detect.inference.stream import FoundFrame, count_line, frames_ahead, read_frames
from detect.runtime.distributed import is_main_process, shard
from detect.runtime.interruption import stop_requests
from detect.runtime.logs import LOGGER
from detect.runtime.prefetch import prefetch
from detect.runtime.progress import progress_bar
from detect.structures import Classification

if TYPE_CHECKING:
    from detect.runtime.device import Precision

OnRecord = Callable[[dict[str, Any]], None]
"""Receives the JSON record of each image or frame."""

_TITLE = "detect"
_STOP_KEYS = (ord("q"), 27)  # q and Escape


def open_predictor(weights: Path, device: str, precision: Precision) -> Detector | Classifier:
    """Open a checkpoint or an exported file as a detector or a classifier, by its network."""
    network = open_network(weights, device, precision)
    return Classifier(network) if network.is_classifier else Detector(network)


class PreviewWindow:
    """A window that shows one image after the other.

    Raises:
        InputError: OpenCV was installed without windows, or there is no display.
    """

    def __init__(self) -> None:
        if not cv2.currentUIFramework():
            raise InputError(
                "--show: this OpenCV has no windows; pip uninstall opencv-python-headless, then pip install "
                "opencv-python"
            )
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise InputError("--show: there is no display (DISPLAY is not set)")
        self.is_open = True
        """False after q or Escape, or when the window was closed."""

    def show(self, image_rgb: np.ndarray, *, wait: bool) -> None:
        """Show an image, (H, W, 3) uint8; ``wait`` for a key, for single images."""
        cv2.imshow(_TITLE, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(0 if wait else 1) & 0xFF
        self.is_open = key not in _STOP_KEYS and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1


def detect_sources(
    detector: Detector,
    sources: Sequence[Source],
    folder: Path,
    outputs: OutputOptions,
    window: PreviewWindow | None = None,
    on_record: OnRecord | None = None,
    **options: Any,
) -> Iterator[str]:
    """Detect in sources and write the files; Ctrl-C and SIGTERM end the run after the current frame.

    Reading, the network, and drawing and writing each have a thread, the last one this.

    Processes of torchrun share out the sources. ``options`` are those of ``Detector.stream``.

    Yields:
        A line for each image and each video, and at the end one for each kind of file.
    """
    own = shard(sources)
    found = detector.stream(own, **options) if own else _nothing()
    if options.get("tile") is None:  # images so large that tiles need them: one at a time
        found = prefetch(found, frames_ahead(options.get("batch_size", 1)))
    frames = found if on_record is None else _reported(found, on_record)
    with stop_requests() as stop:
        with closing(found), PredictionWriter(folder, sources, outputs) as writer:
            yield from write_found(frames, writer, window, should_stop=lambda: bool(stop))
        if is_main_process():
            yield from writer.summary()


def _nothing() -> Generator[FoundFrame, None, None]:
    yield from ()


def _reported(frames: Iterable[FoundFrame], on_record: OnRecord) -> Iterator[FoundFrame]:
    for found in frames:
        on_record(to_record(found))
        yield found


def write_found(
    frames: Iterable[FoundFrame],
    writer: PredictionWriter,
    window: PreviewWindow | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[str]:
    """Write the files of images and videos, with a progress bar for each video; yield a line for each of them.

    The run ends early when the window is closed, or when ``should_stop``, called after each frame, returns True.
    """

    def goes_on() -> bool:
        return not should_stop() and (window is None or window.is_open)

    for (source, clip), group in groupby(_warn_of_limit(frames), key=lambda found: (found.source, found.clip)):
        total = clip and clip.num_frames
        with progress_bar(group, Path(source).name, total, unit=" frames", is_shown=clip is not None) as frames_of_one:
            yield _write_source(source, frames_of_one, writer, window, goes_on)
        if not goes_on():
            return


def _write_source(
    source: str,
    group: Iterable[FoundFrame],
    writer: PredictionWriter,
    window: PreviewWindow | None,
    goes_on: Callable[[], bool],
) -> str:
    """Write the files of one source, and sum up its objects in one line."""
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
    return " ".join(f"{source}: {frames}{count_line(classes)}".split())


def _warn_of_limit(frames: Iterable[FoundFrame]) -> Iterator[FoundFrame]:
    """Pass the frames on; at the end warn if some reached the maximum number of detections."""
    images = full = most = 0
    try:
        for found in frames:
            images += 1
            if found.detections.reached_limit:
                full, most = full + 1, max(most, len(found.detections))
            yield found
    finally:
        if full:
            LOGGER.warning(
                "%d of %d images reached the limit of %d detections and may have more objects; raise --max-det (of "
                "export for a file with suppression inside)",
                full,
                images,
                most,
            )


@dataclass(frozen=True)
class FileClassification:
    """Classification of an image file.

    Args:
        path: the image.
        image_rgb: (H, W, 3) uint8.
        classification: of it.
    """

    path: Path
    image_rgb: np.ndarray
    classification: Classification

    def line(self) -> str:
        """The file and its five most probable classes in one line."""
        found = ", ".join(f"{name} {score:.2f}" for name, score in self.classification.top(5))
        return " ".join(f"{self.path}: {found}".split())


def classify_sources(
    classifier: Classifier,
    sources: Sequence[Source],
    folder: Path,
    json: bool = False,
    on_record: OnRecord | None = None,
    **sizes: Any,
) -> Iterator[str]:
    """Classify image files and write the files; processes of torchrun share them out.

    ``sizes`` are those of ``classify_files``; ``on_record`` receives the file's name and its most probable classes.

    Yields:
        A line for each image, and at the end one for each kind of file.
    """
    paths = image_paths(sources)
    writer = ClassWriter(folder, paths, json=json)
    own = shard(paths)
    for prediction in classify_files(classifier, own, **sizes) if own else ():
        writer.add(prediction.path, prediction.image_rgb, prediction.classification)
        if on_record is not None:
            on_record({"file_name": str(prediction.path), "top5": prediction.classification.to_entries()})
        yield prediction.line()
    places = writer.finish()
    if is_main_process():
        yield from places


def classify_files(
    classifier: Classifier, paths: Sequence[Path], batch_size: int = 1, image_size: int | None = None
) -> Iterator[FileClassification]:
    """Classify files, ``batch_size`` of them in memory at a time, and yield a record for each readable one.

    An unreadable file among several is skipped, reported and counted at the end.

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
