"""Object detection in Python: ``Detector``."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, overload

import numpy as np

from detect.class_names import class_indices
from detect.data.letterbox import letterbox, letterboxed_hw, pad_batch
from detect.data.pixel_values import MAX_PIXELS, MAX_TILED_PIXELS, ReadSettings
from detect.errors import InputError
from detect.evaluation.postprocess import PredictSettings, postprocess
from detect.inference.inputs import ImageSource, as_image, in_batches, is_list
from detect.inference.network import InferenceNetwork, Predictor
from detect.inference.opening import open_network
from detect.structures import Detections, Letterbox

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from detect.evaluation.tiling import TiledDetector
    from detect.inference.deadline import Deadline
    from detect.inference.sources import StreamSource
    from detect.inference.stream import FoundFrame
    from detect.models.checkpoint import Checkpoint
    from detect.runtime.device import Precision


class DetectOptions(TypedDict, total=False):
    """Keyword options of ``Detector.predict`` and ``Detector.stream``.

    * ``conf``, default 0.25: minimum score, in [0, 1].
    * ``iou``, default 0.6: of two boxes of a class with a larger IoU the one with the higher score is kept.
    * ``max_det``, default 300: maximum number of detections per image; ``Detections.reached_limit`` is True where there
      may be more objects.
    * ``classes``: names or indices of the classes to keep; default, all.
    * ``image_size``: long side of the network input in pixels, at a lower cost (``Detector.cost``) that of the full
      network; default, the training's.
    * ``batch_size``, default 1: maximum number of images (with ``tile``: of tiles) that go through the network
      together. Only images of one shape after scaling do, so that detections do not depend on the other images.
    * ``class_agnostic``, default False: boxes of different classes suppress each other too.
    * ``tile``: detect in tiles of this side, in pixels of the original image, as well as in the whole image, for small
      objects in large images. Images may then have up to 2^29 pixels; ``max_det`` may have to be larger.
    * ``overlap``, default 0.2: minimum share of a tile that the next one has in common; objects up to this size are
      whole in some tile.
    """

    conf: float
    iou: float
    max_det: int
    classes: Sequence[str | int] | None
    image_size: int | None
    batch_size: int
    class_agnostic: bool
    tile: int | None
    overlap: float


@dataclass(frozen=True)
class _Options:
    """``DetectOptions`` with the defaults."""

    conf: float = 0.25
    iou: float = 0.6
    max_det: int = 300
    classes: Sequence[str | int] | None = None
    image_size: int | None = None
    batch_size: int = 1
    class_agnostic: bool = False
    tile: int | None = None
    overlap: float = 0.2

    def __post_init__(self) -> None:
        for name in ("conf", "iou", "overlap"):
            if not isinstance(value := getattr(self, name), Real):
                raise InputError(f"{name}: must be a number, found {value!r:.80}")
        given = [name for name in ("image_size", "tile") if getattr(self, name) is not None]
        for name in ("max_det", "batch_size", *given):
            if not isinstance(value := getattr(self, name), Integral):
                raise InputError(f"{name}: must be a whole number, found {value!r:.80}")


class Detector(Predictor):
    """A trained detector.

    Example:
        ``Detector("weights.pt").predict("a.jpg")``

        ``detector.cost = 0.6`` switches a checkpoint that was trained with SDPoint to a cheaper network.

    Args:
        weights: a checkpoint: its file, a shipped name (``yolov5n-spd-bccd``) or the result of ``load_checkpoint``; or
            an exported file, or a folder of exported instances, which run in ONNX Runtime. A file with non-maximum
            suppression inside applies its own thresholds first.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, 1 or ``mps``.
        precision: number format of the network: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        InputError: the checkpoint or the device is not usable, or the checkpoint is a classifier's.
    """

    def __init__(
        self,
        weights: str | Path | Checkpoint | InferenceNetwork,
        device: str | int = "auto",
        precision: Precision = "fp32",
    ) -> None:
        network = weights if isinstance(weights, InferenceNetwork) else open_network(weights, device, precision)
        if network.is_classifier:
            raise InputError(f"{network.name} is a classifier; use detect.Classifier")
        super().__init__(network)

    @overload  # a str is a sequence of str too, hence the exception
    def predict(  # type: ignore[overload-overlap]
        self, source: ImageSource, **options: Unpack[DetectOptions]
    ) -> Detections: ...

    @overload
    def predict(self, source: Sequence[ImageSource], **options: Unpack[DetectOptions]) -> list[Detections]: ...

    def predict(
        self, source: ImageSource | Sequence[ImageSource], **options: Unpack[DetectOptions]
    ) -> Detections | list[Detections]:
        """Detect the objects of one image or of several.

        Args:
            source: an image file, a (H, W, 3) uint8 array in RGB order (OpenCV reads BGR; ``image[..., ::-1]`` converts
                it), a PIL image, or a list of these. EXIF orientation is applied. Images of 16 bits, and arrays of
                uint16, also (H, W), are read with the value range of the training.
            options: ``conf`` (default 0.25), ``iou`` (0.6), ``max_det`` (300), ``classes`` (all), ``image_size`` (the
                training's), ``batch_size`` (1), ``class_agnostic`` (False), ``tile`` (None) and ``overlap`` (0.2);
                see ``detect.inference.detector.DetectOptions``.

        Returns:
            ``Detections`` in original-image pixels for one image, a list of them for a list.

        Raises:
            InputError: an image cannot be read, or a value is outside its range.
        """
        chosen = _Options(**options)
        kept = min(chosen.max_det, self._network.max_detections or chosen.max_det)
        settings = PredictSettings(
            chosen.conf,
            chosen.iou,
            kept,
            class_agnostic=chosen.class_agnostic,
            classes=self.class_indices(chosen.classes),
        )
        size = self._network.check_size(chosen.image_size)
        tiles = None if chosen.tile is None else self._tiles(chosen.tile, chosen, size, settings)
        reading = self.read_settings(chosen.tile)
        found: list[Detections] = []
        for sources in in_batches(source, chosen.batch_size):
            images = (as_image(one, reading) for one in sources)
            if tiles is None:
                found += self._predict_batch(images, size, settings)
            else:
                found += [tiles.detect(image) for image in images]
        return found if is_list(source) else found[0]

    def stream(
        self,
        source: StreamSource | Sequence[StreamSource],
        *,
        every: int = 1,
        track: bool = False,
        deadline: Deadline | None = None,
        **options: Unpack[DetectOptions],
    ) -> Generator[FoundFrame, None, None]:
        """Detect the objects of images, videos, cameras and streams of any length.

        A few of them are in memory at a time: the following ones are read in another thread while a batch is worked on.

        Example:
            ``for frame in detector.stream("video.mp4", track=True): print(frame.time_s, frame.detections)``

        Args:
            source: as for ``predict``, or: a video file, a folder, a glob pattern, a ``.txt`` file of paths, an
                ``rtsp://`` or ``http://`` address, the number of a camera; or a list of these.
            every: of a video or an animation use each N-th frame only.
            track: number the objects of videos, ``Detections.track_ids``; needs the extra ``track``. A tracked object
                is kept down to a score of 0.1.
            deadline: of ``Detector.deadline``; it chooses the instance for each frame and keeps the times. Not together
                with ``batch_size`` or ``image_size``.
            options: as for ``predict``; ``batch_size`` frames are read, and at most go through the network, together.

        Returns:
            An iterator over records with source, number and time of the frame, image and detections. A source that
            cannot be read, or ends too early, is logged and skipped; if it is the only one, it is an error.

        Raises:
            InputError: ``source`` names nothing that can be read, or a value is outside its range.
        """
        from detect.inference.stream import detect_frames

        chosen = _Options(**options)
        if deadline is not None and (chosen.batch_size != 1 or chosen.image_size is not None):
            raise InputError("deadline: frames go one by one, at their instance's size; no batch size or image size")

        def predict(images: list[np.ndarray], conf: float) -> list[Detections]:
            given: DetectOptions = {**options, "conf": conf}
            if deadline is not None:
                return deadline.run(lambda: self.predict(images, **given))
            return self.predict(images, **given)

        reading, batch_size = self.read_settings(chosen.tile), chosen.batch_size
        return detect_frames(
            predict, source, reading, every=every, batch_size=batch_size, conf=chosen.conf, track=track
        )

    def deadline(self, deadline_ms: float) -> Deadline:
        """A deadline for the frames of ``stream``: the instance is chosen frame by frame, so that few are late.

        Args:
            deadline_ms: maximum time from a frame's pixels to its detections: scaling, network and suppression.

        Returns:
            What ``stream`` takes; after it ``lines()`` has the frames and times of each instance.

        Raises:
            InputError: it is not above 0, or the network has no measured instances.
        """
        from detect.inference.deadline import Deadline

        return Deadline(self._network, deadline_ms)

    def network_hw(self, image_hw: tuple[int, int], image_size: int | None = None) -> tuple[int, int]:
        """Height and width of the network input for an image of height and width ``image_hw``."""
        return self._network.padded_hw(letterboxed_hw(image_hw, self._network.check_size(image_size)))

    def class_indices(self, classes: Sequence[str | int] | None) -> tuple[int, ...] | None:
        """Class names or indices as indices, None as None; ``InputError`` if there is no such class."""
        return class_indices(classes, self.names)

    def read_settings(self, tile: int | None = None) -> ReadSettings:
        """Settings for reading images: the value range of the training, and a higher limit of pixels with tiles."""
        return ReadSettings(self._network.value_range, MAX_PIXELS if tile is None else MAX_TILED_PIXELS)

    def _predict_batch(self, images: Iterable[np.ndarray], size: int, settings: PredictSettings) -> list[Detections]:
        placed = [letterbox(image, size) for image in images]
        groups: dict[tuple[int, ...], list[int]] = {}  # positions of the images of each shape
        for index, (image, _) in enumerate(placed):
            groups.setdefault(image.shape, []).append(index)
        found: dict[int, Detections] = {}
        for members in groups.values():
            images = [placed[index][0] for index in members]
            letterboxes = [placed[index][1] for index in members]
            found.update(zip(members, self._detect(images, letterboxes, settings), strict=True))
        return [found[index] for index in range(len(placed))]

    def _tiles(self, tile: int, chosen: _Options, size: int, settings: PredictSettings) -> TiledDetector:
        from detect.evaluation.tiling import TiledDetector, Tiling

        network, tiling = self._network, Tiling(tile, chosen.overlap)
        return TiledDetector(
            network.predictions, tiling, size, chosen.batch_size, network.multiple, settings, self.names
        )

    def _detect(
        self, images: list[np.ndarray], letterboxes: list[Letterbox], settings: PredictSettings
    ) -> list[Detections]:
        batch = pad_batch(images, self._network.multiple)
        return postprocess(self._network.predictions(batch), letterboxes, settings, self.names)
