"""The records that pass between packages.

Letters: B images of a batch, H W pixels (or cells) of a map, M targets, N detections, K classes.
Boxes are ``xyxy``: x left, y top, x right, y bottom, float; the frame is in the field's description.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from PIL.Image import Image

from detect.boxes.convert import xyxy_to_xywh
from detect.class_names import class_indices
from detect.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# ---------------------------------------------------------------------------- network and loss


@dataclass(frozen=True)
class FeatureShape:
    """Output shape of a module of the graph.

    Args:
        channels: of the map.
        reduction: input pixels per cell, the same in both directions (total downsampling).
    """

    channels: int
    reduction: int


@dataclass(frozen=True)
class Targets:
    """Ground truth of a batch in one flat list.

    Args:
        image_index: (M,) int64, the image of the batch, in [0, B).
        labels: (M,) int64 class index, in [0, K).
        boxes_xyxy_px: (M, 4) float32, pixels of the network input.
        image_hw: height and width of the network input, from which the loss knows how large a cell is; None where cells
            have their nominal size.
    """

    image_index: Tensor
    labels: Tensor
    boxes_xyxy_px: Tensor
    image_hw: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Targets:
        tensors = (self.image_index, self.labels, self.boxes_xyxy_px)
        index, labels, boxes = (tensor.to(device, non_blocking=True) for tensor in tensors)
        return Targets(index, labels, boxes, self.image_hw)

    def scaled(self, scale_xy: tuple[float, float]) -> Targets:
        """Return the targets of resized images; ``scale_xy`` is (new width / width, new height / height)."""
        factors = self.boxes_xyxy_px.new_tensor([*scale_xy, *scale_xy])
        new_hw = self.image_hw and (round(self.image_hw[0] * scale_xy[1]), round(self.image_hw[1] * scale_xy[0]))
        return Targets(self.image_index, self.labels, self.boxes_xyxy_px * factors, new_hw)

    def of(self, images: Tensor) -> Targets:
        """Return the targets of ``images`` (b,) int64, numbered 0 to b - 1 in that order."""
        index, kept = (images[:, None] == self.image_index).nonzero(as_tuple=True)
        return Targets(index, self.labels[kept], self.boxes_xyxy_px[kept], self.image_hw)

    def pin_memory(self) -> Targets:
        index, labels, boxes = (t.pin_memory() for t in (self.image_index, self.labels, self.boxes_xyxy_px))
        return Targets(index, labels, boxes, self.image_hw)


@dataclass(frozen=True)
class ClassTargets:
    """Class targets of a batch.

    Args:
        shares: (B, K) float32, probability of each class: one-hot, or less in a mixed image; rows sum to 1.
    """

    shares: Tensor

    def __len__(self) -> int:
        return len(self.shares)

    def to(self, device: torch.device) -> ClassTargets:
        return ClassTargets(self.shares.to(device, non_blocking=True))

    def scaled(self, scale_xy: tuple[float, float]) -> ClassTargets:
        """Return the same targets: the size of an image does not matter."""
        return self

    def of(self, images: Tensor) -> ClassTargets:
        """Return the targets of ``images`` (b,) int64, in that order."""
        return ClassTargets(self.shares[images])

    def pin_memory(self) -> ClassTargets:
        return ClassTargets(self.shares.pin_memory())


@dataclass(frozen=True)
class Letterbox:
    """Placement of an image in the network input: scaled, in the top left corner, padded right and below.

    Args:
        scale_xy: network pixels per image pixel, x and y; they differ by rounding only.
        image_hw: height and width of the original image (EXIF orientation applied).
    """

    scale_xy: tuple[float, float]
    image_hw: tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """Images with their ground truth.

    Args:
        images: (B, H, W, 3) uint8, RGB, network input pixels, H and W multiples of 32. Channels come last as in decoded
            images: ``images.permute(0, 3, 1, 2)`` is a channels-last NCHW tensor without a copy.
        targets: ground truth; boxes in network input pixels.
        rows: (B,) int64, row of each image in its table.
        letterboxes: placement of each image; empty for augmented training batches and in classification.
        preprocess_seconds: time for reading, scaling and padding in the process that did it; 0 if not measured.
    """

    images: Tensor
    targets: Targets | ClassTargets
    rows: Tensor
    letterboxes: Sequence[Letterbox] = ()
    preprocess_seconds: float = 0.0

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory (called by PyTorch's ``DataLoader``)."""
        return replace(self, images=self.images.pin_memory(), targets=self.targets.pin_memory())


# -------------------------------------------------------------------------------- predictions


@dataclass(frozen=True)
class Detection:
    """One detected object.

    Args:
        box_xyxy_px: pixels of the original image, inside it.
        score: in [0, 1].
        label: class index.
        name: class name.
        track_id: number of the tracked object in a video; None without tracking, and where it is unknown.
    """

    box_xyxy_px: tuple[float, float, float, float]
    score: float
    label: int
    name: str
    track_id: int | None = None

    @property
    def caption(self) -> str:
        """Text beside the box: track, name and score."""
        track = "" if self.track_id is None else f"#{self.track_id} "
        return f"{track}{self.name} {self.score:.2f}"


@dataclass(frozen=True)
class Detections:
    """Detections of one image, best score first: a sequence of ``Detection``.

    Example:
        ``for one in found.filter(classes=["cat"], min_score=0.5): print(one.name, one.box_xyxy_px)``; ``found[0]`` is
        the best one, ``found[:10]`` are the ten best.

    Args:
        boxes_xyxy_px: (N, 4) float32, pixels of the original image, inside it.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64 class index, in [0, K).
        image_hw: height and width of the original image.
        names: K class names.
        track_ids: (N,) int64, number of the tracked object, from 1; -1 where it is not known (yet). None without
            tracking.
        reached_limit: N is the maximum per image (``max_det``), so there may be more objects.
    """

    boxes_xyxy_px: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    image_hw: tuple[int, int]
    names: tuple[str, ...]
    track_ids: np.ndarray | None = None
    reached_limit: bool = False

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Detection: ...

    @overload
    def __getitem__(self, index: slice) -> Detections: ...

    def __getitem__(self, index: int | slice) -> Detection | Detections:
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        left, top, right, bottom = self.boxes_xyxy_px[index].tolist()
        label = int(self.labels[index])
        track_id = -1 if self.track_ids is None else int(self.track_ids[index])
        return Detection(
            (left, top, right, bottom),
            float(self.scores[index]),
            label,
            self.names[label],
            None if track_id < 0 else track_id,
        )

    @property
    def class_names(self) -> list[str]:
        """Class names of the N detections."""
        return [self.names[label] for label in self.labels]

    def select(self, keep: np.ndarray) -> Detections:
        """Return the detections at ``keep``: (N,) bool or (n,) int indices."""
        track_ids = None if self.track_ids is None else self.track_ids[keep]
        return replace(
            self,
            boxes_xyxy_px=self.boxes_xyxy_px[keep],
            scores=self.scores[keep],
            labels=self.labels[keep],
            track_ids=track_ids,
        )

    def filter(self, classes: Sequence[str | int] | None = None, min_score: float = 0.0) -> Detections:
        """Return the detections of some classes, by names or indices (None: of all), with at least a score in [0, 1].
        ``InputError`` if there is no such class, or the score is out of range.
        """
        if not 0 <= min_score <= 1:
            raise InputError(f"min_score: must be from 0 to 1, found {min_score:g}")
        wanted = class_indices(classes, self.names)
        keep = self.scores >= min_score
        return self.select(keep if wanted is None else keep & np.isin(self.labels, wanted))

    def plot(self, image_rgb: np.ndarray | Image) -> np.ndarray:
        """Draw the boxes with class names and scores, and the numbers of tracked objects.

        Args:
            image_rgb: (H, W, 3) uint8, the image of these detections, or a PIL image of mode RGB.

        Returns:
            A copy with the drawing, (H, W, 3) uint8; ``InputError`` if the image has another mode or size.
        """
        from detect.drawing.boxes import draw_boxes  # only pictures need it

        image = np.asarray(image_rgb)
        expected = (*self.image_hw, 3)
        if image.shape != expected or image.dtype != np.uint8:
            raise InputError(
                f"plot: needs the image that this was found in, upright: {expected} uint8 RGB; "
                f"found {image.shape} {image.dtype}"
            )
        return draw_boxes(image, self.boxes_xyxy_px, self.labels, [one.caption for one in self])

    def to_coco(self, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Return the entries of a COCO results file, which pycocotools and evaluation servers read.

        Args:
            image_id: of the image in the annotation file.
            category_ids: K ids of the annotation file, such as ``detector.category_ids``.

        Returns:
            N entries ``{"image_id", "category_id", "score", "bbox": [x, y, width, height]}``, in pixels.

        Raises:
            InputError: there are not K ids.
        """
        if len(category_ids) != len(self.names):
            raise InputError(f"category_ids: must be {len(self.names)}, as many as names, found {len(category_ids)}")
        boxes_xywh_px = xyxy_to_xywh(self.boxes_xyxy_px.astype(np.float64)).tolist()
        return [
            {"image_id": int(image_id), "category_id": int(category_ids[label]), "score": score, "bbox": box}
            for label, score, box in zip(self.labels.tolist(), self.scores.tolist(), boxes_xywh_px, strict=True)
        ]

    def to_dataframe(self) -> Any:
        """Return a ``pandas.DataFrame`` with a row per detection; ``InputError`` if pandas is not installed.

        Its columns are ``name``, ``label``, ``score``, ``left``, ``top``, ``right``, ``bottom`` (pixels), and, of
        tracked objects, ``track_id``.
        """
        sides = dict(zip(("left", "top", "right", "bottom"), self.boxes_xyxy_px.T, strict=True))
        tracks = {} if self.track_ids is None else {"track_id": self.track_ids}
        columns = {"name": self.class_names, "label": self.labels, "score": self.scores, **sides, **tracks}
        return _installed("pandas", "to_dataframe").DataFrame(columns)

    def to_supervision(self) -> Any:
        """Return ``supervision.Detections`` with the class names in ``data``, for supervision's annotators.

        Raises:
            InputError: supervision is not installed.
        """
        return _installed("supervision", "to_supervision").Detections(
            xyxy=self.boxes_xyxy_px.astype(np.float32),
            confidence=self.scores.astype(np.float32),
            class_id=self.labels.astype(int),
            tracker_id=None if self.track_ids is None else self.track_ids.astype(int),
            data={"class_name": np.array(self.class_names, dtype=np.str_)},
        )

    def to_fiftyone(self) -> Any:
        """Return ``fiftyone.Detections``, for a field of a sample; ``index`` is the number of the tracked object.

        Raises:
            InputError: FiftyOne is not installed.
        """
        fiftyone = _installed("fiftyone", "to_fiftyone")
        height, width = self.image_hw
        shares = xyxy_to_xywh(self.boxes_xyxy_px.astype(np.float64)) / [width, height, width, height]
        return fiftyone.Detections(
            detections=[
                fiftyone.Detection(label=one.name, bounding_box=box, confidence=one.score, index=one.track_id)
                for one, box in zip(self, shares.tolist(), strict=True)
            ]
        )


@dataclass(frozen=True)
class Classification:
    """Classification of one image.

    Args:
        probabilities: (K,) float32, of each class; they sum to 1.
        names: K class names.
    """

    probabilities: np.ndarray
    names: tuple[str, ...]

    @property
    def label(self) -> int:
        """Index of the most probable class."""
        return int(self.probabilities.argmax())

    @property
    def name(self) -> str:
        """Name of the most probable class."""
        return self.names[self.label]

    @property
    def score(self) -> float:
        """Probability of the most probable class."""
        return float(self.probabilities[self.label])

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return names and probabilities of the ``count`` most probable classes, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.names[label], float(self.probabilities[label])) for label in order]

    def to_entries(self) -> list[dict[str, Any]]:
        """Return the five most probable classes, best first, for JSON: ``category`` (class name) and ``score``."""
        return [{"category": name, "score": round(score, 5)} for name, score in self.top()]


def _installed(library: str, wanted_by: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError:
        raise InputError(f"{wanted_by}: needs {library}, which is not installed: pip install {library}") from None
