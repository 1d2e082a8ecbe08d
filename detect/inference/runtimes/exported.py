"""An exported file in the place of a checkpoint, in any runtime. PyTorch, whose import takes longer than all else here,
is not used.

Letters: B images, H W network input pixels, P predictions of an image, D rows of its detections, K classes, A anchors
of a level, h w its cells.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol, get_args

import cv2
import numpy as np

from detect.boxes.array_coding import Offsets, Sizes, decode_level
from detect.boxes.convert import xyxy_to_cxcywh
from detect.data.letterbox import pad_batch, padded_hw
from detect.errors import InputError
from detect.inference.inputs import checked_size
from detect.inference.instances import Budget, FixedCostError
from detect.safety.metadata import MAX_SIDE, read_metadata

FIXED_COST = (
    "the cost of an exported file is fixed; detect export --cost exports another one, --instances several in a folder"
)


class Session(Protocol):
    """An opened file in its runtime."""

    metadata: dict[str, str]
    """As ``detect.exporting.metadata`` writes them."""
    device_name: str
    """``cpu``, ``cuda:0``, ...: of ``torch.device``."""

    @property
    def input_hw(self) -> tuple[int, ...] | None:
        """Height and width of the only image that the file takes; None: it takes batches of any size."""
        ...

    @property
    def num_outputs(self) -> int: ...

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """The float32 outputs, in their order, for (B, 3, H, W) float32 RGB in [0, 1]; ``InputError`` if it fails."""
        ...


class _Level(NamedTuple):
    """Meaning of a level of a raw file; see ``detect.boxes.coding.BoxCoding``.

    Args:
        anchors_px: (A, 2) float32, widths and heights.
        xy_scale: of the centres.
        sizes: way of widths and heights.
        offsets: way of the centres.
    """

    anchors_px: np.ndarray
    xy_scale: float
    sizes: Sizes
    offsets: Offsets


class ExportedNetwork:
    """An exported network in the runtime of its format; see ``detect.inference.network.InferenceNetwork``.

    Args:
        path: a file that ``detect export`` wrote.
        session: the opened file.
        version: ``format`` in its metadata.

    Raises:
        InputError: the metadata are damaged or not of this toolkit.
    """

    def __init__(self, path: Path, session: Session, version: str) -> None:
        self.path, self.session, self._version = path, session, version
        self.metadata, self.device_name = session.metadata, session.device_name
        try:
            self._read(self.metadata)
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: its metadata are incomplete or damaged ({error}); export it again") from None

    def _read(self, metadata: dict[str, str]) -> None:
        if metadata.get("format") != self._version:
            raise InputError(f"{self.path}: is not a file that detect export wrote (format {self._version})")
        self.name = metadata["model"]
        self.is_classifier = metadata["task"] == "classification"
        preprocessing = json.loads(metadata["preprocessing"])
        crop = preprocessing["center_crop"] if self.is_classifier else 1.0
        lists = {key: json.loads(metadata[key]) for key in ("names", "category_ids")}
        entries = {**lists, "image_size": int(metadata["image_size"]), "center_crop": float(crop), "metrics": {}}
        facts = read_metadata({**entries, "value_range": preprocessing.get("value_range")}, str(self.path))
        self.names, self.category_ids, self.image_size = facts.names, facts.category_ids, facts.image_size
        self.center_crop, self.value_range = facts.center_crop, facts.value_range
        self.tile_px = int(preprocessing.get("tile_px", 0))
        self.multiple = int(metadata["stride"])
        if not 1 <= self.multiple <= MAX_SIDE:
            raise InputError(f"{self.path}: stride: must be from 1 to {MAX_SIDE}, found {self.multiple}")
        self.instance, self.cost = metadata["instance"], float(metadata["cost"])
        output = json.loads(metadata["output"])
        self._suppressed = output.get("non_maximum_suppression") == "applied"
        self.max_detections = int(output["max_detections"]) if self._suppressed else None
        self._levels = [_read_level(level) for level in output.get("levels", ())]  # of a raw file
        if self._levels and len(self._levels) != self.session.num_outputs:
            raise ValueError(f"{len(self._levels)} levels for {self.session.num_outputs} outputs")
        sides = self.session.input_hw
        self._is_fixed = sides is not None
        if sides is not None and sides != (self.image_size, self.image_size):
            raise InputError(
                f"{self.path}: takes images of {list(sides)}, but names {self.image_size}; export it again"
            )

    def menu(self) -> NoReturn:
        raise FixedCostError(FIXED_COST)

    def use(self, name: str) -> NoReturn:
        raise FixedCostError(FIXED_COST)

    def choose(self, budget: Budget) -> NoReturn:
        raise FixedCostError(FIXED_COST)

    def multiply_adds(self, network_hw: tuple[int, int]) -> None:
        return None  # the file does not have them

    def check_size(self, image_size: int | None) -> int:
        if image_size is None or image_size == self.image_size:
            return self.image_size
        if self._is_fixed:
            raise InputError(f"image size: {self.path} takes {self.image_size} only, found {image_size}")
        return checked_size(image_size, self.multiple)

    def padded_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        if self._is_fixed:
            return self.image_size, self.image_size
        return padded_hw(image_hw, self.multiple)

    def predictions(self, images: np.ndarray) -> np.ndarray:
        if self._levels:
            return self._decoded(self._run(images), self.padded_hw((images.shape[1], images.shape[2])))
        if not self._suppressed:
            predictions = self._run(images)[0]
            if predictions.ndim != 3 or predictions.shape[2] != 5 + len(self.names):
                raise self._unlike(f"predictions of {len(self.names)} classes", predictions)
            return predictions
        detections = self._run(images)[0]  # (B, D, 6)
        is_table = detections.ndim == 3 and detections.shape[2] == 6
        if not is_table or not ((detections[..., 5] >= 0) & (detections[..., 5] < len(self.names))).all():
            raise self._unlike("detections of the classes that it names", detections)
        # As predictions with class probability 1: suppression with the same settings leaves them as they are.
        boxes = xyxy_to_cxcywh(detections[..., :4])
        classes = np.eye(len(self.names), dtype=boxes.dtype)[detections[..., 5].astype(np.int64)]
        return np.concatenate([boxes, detections[..., 4:5], classes], axis=-1)

    def _decoded(self, maps: list[np.ndarray], input_hw: tuple[int, int]) -> np.ndarray:
        """(B, P, 5 + K) of a raw file's (B, A * (5 + K), h, w)."""
        found = []
        for y, level in zip(maps, self._levels, strict=True):
            num_anchors = len(level.anchors_px)
            if y.ndim != 4 or y.shape[1] != num_anchors * (5 + len(self.names)):
                raise self._unlike(f"maps of {num_anchors} anchors and {len(self.names)} classes", y)
            batch, _, height, width = y.shape
            raw = y.reshape(batch, num_anchors, -1, height, width).transpose(0, 1, 3, 4, 2)  # (B, A, h, w, 5 + K)
            cell_px = (input_hw[1] / width, input_hw[0] / height)
            found.append(decode_level(raw, level.anchors_px, cell_px, *level[1:]))
        return np.concatenate(found, axis=1)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        probabilities = self._run(images)[0]
        if probabilities.shape != (len(images), len(self.names)):
            raise self._unlike(f"probabilities of {len(self.names)} classes", probabilities)
        return probabilities

    def _unlike(self, promised: str, found: np.ndarray) -> InputError:
        return InputError(f"{self.path}: should give {promised}, found {found.shape}; export it again")

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs for (B, H, W, 3) uint8 RGB."""
        if not self._is_fixed:
            return self.session.run(network_input(images))
        side = (self.image_size, self.image_size)
        outputs = [self.session.run(network_input(pad_batch([image], shape_hw=side))) for image in images]
        return [np.concatenate(parts) for parts in zip(*outputs, strict=True)]


def network_input(images: np.ndarray) -> np.ndarray:
    """Convert images (B, H, W, 3) uint8 RGB to (B, 3, H, W) float32 in [0, 1]."""
    pixels = np.empty((len(images), 3, *images.shape[1:3]), np.float32)
    for planes, image in zip(pixels, images, strict=True):
        for plane, channel in zip(planes, cv2.split(image), strict=True):  # faster than a strided copy
            np.divide(channel, np.float32(255), out=plane, dtype=np.float32)
    return pixels


def _read_level(level: dict[str, Any]) -> _Level:
    """Coding and anchors of a level."""
    anchors_px = np.array(level["anchors_px"], dtype=np.float32)
    are_sizes = anchors_px.ndim == 2 and anchors_px.shape[1] == 2 and bool((anchors_px > 0).all())
    offsets = level.get("offsets", "sigmoid")  # older files do not say it
    are_known = level["sizes"] in get_args(Sizes) and offsets in get_args(Offsets)
    if not are_known or not are_sizes or not np.isfinite(anchors_px).all():
        raise ValueError(f"unknown decoding {level}")
    return _Level(anchors_px, float(level["xy_scale"]), level["sizes"], offsets)
