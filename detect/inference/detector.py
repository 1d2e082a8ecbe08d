"""The Python interface: a checkpoint in, detections out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL.Image import Image

from detect.class_names import class_indices
from detect.data.letterbox import letterbox, letterboxed_hw, pad_batch
from detect.data.pixel_values import MAX_PIXELS, MAX_TILED_PIXELS, ReadSettings
from detect.errors import InputError
from detect.evaluation.predict import PredictSettings, postprocess
from detect.evaluation.tiling import TiledPredictor, Tiling
from detect.inference.frames import FoundFrame
from detect.inference.inputs import as_image, in_batches, is_list
from detect.inference.network import Network, Predictor, open_network
from detect.inference.stream import detect_frames
from detect.models.checkpoint import Checkpoint
from detect.runtime.device import Precision
from detect.structures import Detections, Letterbox


class Detector(Predictor):
    """A trained model, ready to look at images.

    Example:
        ``Detector("weights.pt").predict("a.jpg")``; ``detector.cost = 0.6`` makes one that was trained with SDPoint
        cheaper, at once.

    Args:
        weights: a checkpoint of this toolkit: its file, the name of a shipped one (``yolov5n-spd-bccd``), or what
            ``load_checkpoint`` gave; or the file of an exported model, which runs in ONNX Runtime. One with non-maximum
            suppression inside keeps to its own thresholds; stricter ones still apply.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``1`` or ``mps``.
        precision: number format of the network: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        InputError: the checkpoint or the device is not usable, or the checkpoint is a classifier's.
    """

    def __init__(
        self, weights: str | Path | Checkpoint | Network, device: str = "auto", precision: Precision = "fp32"
    ) -> None:
        network = weights if isinstance(weights, Network) else open_network(weights, device, precision)
        if network.is_classifier:
            raise InputError(f"{network.name} is a classifier; use detect.Classifier")
        super().__init__(network)

    @overload  # a str is a sequence of str too, hence the exception
    def predict(  # type: ignore[overload-overlap]
        self,
        source: str | Path | np.ndarray | Image,
        *,
        conf: float = ...,
        iou: float = ...,
        max_det: int = ...,
        classes: Sequence[str | int] | None = ...,
        image_size: int | None = ...,
        batch_size: int = ...,
        class_agnostic: bool = ...,
        tile: int | None = ...,
        overlap: float = ...,
    ) -> Detections: ...

    @overload
    def predict(
        self,
        source: Sequence[str | Path | np.ndarray | Image],
        *,
        conf: float = ...,
        iou: float = ...,
        max_det: int = ...,
        classes: Sequence[str | int] | None = ...,
        image_size: int | None = ...,
        batch_size: int = ...,
        class_agnostic: bool = ...,
        tile: int | None = ...,
        overlap: float = ...,
    ) -> list[Detections]: ...

    def predict(
        self,
        source: str | Path | np.ndarray | Image | Sequence[str | Path | np.ndarray | Image],
        *,
        conf: float = 0.25,
        iou: float = 0.6,
        max_det: int = 300,
        classes: Sequence[str | int] | None = None,
        image_size: int | None = None,
        batch_size: int = 1,
        class_agnostic: bool = False,
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> Detections | list[Detections]:
        """Find the objects in one image or in several.

        Args:
            source: an image file, a (H, W, 3) uint8 array in RGB order (what OpenCV reads is BGR; ``image[..., ::-1]``
                turns it), a PIL image, or a list of these. EXIF orientation is applied. Images of 16 bits, and arrays
                of uint16, also (H, W), are read with the range of values of the training.
            conf: least score, in [0, 1].
            iou: of two boxes of a class that overlap by more than this IoU the better one stays.
            max_det: most detections per image; ``Detections.reached_limit`` tells where there may be more objects.
            classes: names or indices of the classes to keep; None keeps all.
            image_size: long side of the network input in pixels; None is the one of the training.
            batch_size: images that go through the network together, at most. Only images of one shape after scaling do,
                so that what is found in an image does not depend on the others.
            class_agnostic: boxes of different classes count as doubles of each other too.
            tile: look at the image in tiles of this side, in pixels of the original image, as well as in one piece, so
                that small objects in a large image are seen. Images may then have up to 2^29 pixels,
                ``batch_size`` is of tiles, and ``max_det`` may have to be larger.
            overlap: least share of a tile that the next one has in common; objects of this size are whole in some tile.

        Returns:
            ``Detections`` in original-image pixels for one image, a list of them for a list.

        Raises:
            InputError: an image cannot be read, or a value is outside its range.
        """
        kept = min(max_det, self._network.max_detections or max_det)
        settings = PredictSettings(conf, iou, kept, class_agnostic=class_agnostic, classes=self.class_indices(classes))
        size = self._network.check_size(image_size)
        tiling = None if tile is None else Tiling(tile, overlap)
        reading = self.read_settings(tile)
        found: list[Detections] = []
        for sources in in_batches(source, batch_size):
            images = (as_image(one, reading) for one in sources)
            if tiling is None:
                found += self._predict_batch(images, size, settings)
            else:
                tiles = self._tiles(tiling, size, batch_size, settings)
                found += [tiles.predict(image) for image in images]
        return found if is_list(source) else found[0]

    def stream(
        self,
        source: Any,
        *,
        every: int = 1,
        batch_size: int = 1,
        track: bool = False,
        conf: float = 0.25,
        **options: Any,
    ) -> Iterator[FoundFrame]:
        """Find the objects in images, videos, cameras and streams of any length, a batch in memory at a time.

        Args:
            source: what ``predict`` takes, and: a video file, a folder, a glob pattern, a ``.txt`` file of paths, an
                ``rtsp://`` or ``http://`` address, the number of a camera; or a list of these.
            every: of a video only each so-many-th frame is looked at.
            batch_size: frames that are read, and at most go through the network, together.
            track: objects of a video keep a number, ``Detections.track_ids``; needs the extra ``track``. One that is
                being tracked stays in down to a score of 0.1.
            conf: least score, in [0, 1].
            options: others of ``predict``.

        Returns:
            An iterator over records with source, number and time of the frame, image and detections. What cannot be
            read, or ends too early, is logged and left out; if it is all there is, it is an error.

        Raises:
            InputError: ``source`` names nothing that can be read, or a value is outside its range.
        """
        return detect_frames(
            self.predict,
            source,
            reading=self.read_settings(options.get("tile")),
            every=every,
            batch_size=batch_size,
            track=track,
            conf=conf,
            **options,
        )

    def network_hw(self, image_hw: tuple[int, int], image_size: int | None = None) -> tuple[int, int]:
        """Height and width of the network input for an image of height and width ``image_hw``; see ``predict``."""
        return self._network.padded_hw(letterboxed_hw(image_hw, self._network.check_size(image_size)))

    def class_indices(self, classes: Sequence[str | int] | None) -> tuple[int, ...] | None:
        """Class names or indices as indices; None stays None.

        Raises:
            InputError: there is no such class.
        """
        return class_indices(classes, self.names)

    def read_settings(self, tile: int | None = None) -> ReadSettings:
        """How images are read: with the range of values of the training; with tiles, larger ones are, too."""
        return ReadSettings(self._network.value_range, MAX_PIXELS if tile is None else MAX_TILED_PIXELS)

    def _predict_batch(self, images: Iterable[np.ndarray], size: int, settings: PredictSettings) -> list[Detections]:
        placed = [letterbox(image, size) for image in images]
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, (image, _) in enumerate(placed):
            groups.setdefault(image.shape, []).append(index)
        found: dict[int, Detections] = {}
        for members in groups.values():
            images = [placed[index][0] for index in members]
            letterboxes = [placed[index][1] for index in members]
            found.update(zip(members, self._detect(images, letterboxes, settings), strict=True))
        return [found[index] for index in range(len(placed))]

    def _tiles(self, tiling: Tiling, size: int, batch_size: int, settings: PredictSettings) -> TiledPredictor:
        network = self._network
        return TiledPredictor(network.predictions, tiling, size, batch_size, network.multiple, settings, self.names)

    def _detect(
        self, images: list[np.ndarray], letterboxes: list[Letterbox], settings: PredictSettings
    ) -> list[Detections]:
        batch = torch.from_numpy(pad_batch(images, self._network.multiple))
        return postprocess(self._network.predictions(batch), letterboxes, settings, self.names)
