"""The records that pass between packages.

Letters: B images of a batch, H W pixels (or cells) of a map, M targets, N detections, K classes.
Boxes are ``xyxy``: x left, y top, x right, y bottom, float; the frame is in the field's docstring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class FeatureShape:
    """What a module of the graph promises about its output.

    Args:
        channels: the map's channels.
        reduction: input pixels per cell, the same in both directions (the total downsampling so far).
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
        """The same targets on another device."""
        tensors = (self.image_index, self.labels, self.boxes_xyxy_px)
        index, labels, boxes = (tensor.to(device, non_blocking=True) for tensor in tensors)
        return Targets(index, labels, boxes, self.image_hw)

    def scaled(self, scale_xy: tuple[float, float]) -> Targets:
        """The targets of the same images after a resize by ``scale_xy`` = (new width / width, new height / height)."""
        factors = self.boxes_xyxy_px.new_tensor([*scale_xy, *scale_xy])
        new_hw = self.image_hw and (round(self.image_hw[0] * scale_xy[1]), round(self.image_hw[1] * scale_xy[0]))
        return Targets(self.image_index, self.labels, self.boxes_xyxy_px * factors, new_hw)

    def of(self, images: Tensor) -> Targets:
        """The targets of some of the images, ``images`` (b,) int64, which are numbered anew in that order."""
        index, kept = (images[:, None] == self.image_index).nonzero(as_tuple=True)
        return Targets(index, self.labels[kept], self.boxes_xyxy_px[kept], self.image_hw)

    def pin_memory(self) -> Targets:
        """The same targets in page-locked memory."""
        index, labels, boxes = (t.pin_memory() for t in (self.image_index, self.labels, self.boxes_xyxy_px))
        return Targets(index, labels, boxes, self.image_hw)


@dataclass(frozen=True)
class ClassTargets:
    """What the images of a batch show.

    Args:
        shares: (B, K) float32, how much of each image each class is: 1 for its own, or less in a mixed image; the
            rows sum to 1.
    """

    shares: Tensor

    def __len__(self) -> int:
        return len(self.shares)

    def to(self, device: torch.device) -> ClassTargets:
        """The same targets on another device."""
        return ClassTargets(self.shares.to(device, non_blocking=True))

    def scaled(self, scale_xy: tuple[float, float]) -> ClassTargets:
        """The same targets: what an image shows does not depend on its size."""
        return self

    def of(self, images: Tensor) -> ClassTargets:
        """The targets of some of the images, ``images`` (b,) int64, in that order."""
        return ClassTargets(self.shares[images])

    def pin_memory(self) -> ClassTargets:
        """The same targets in page-locked memory."""
        return ClassTargets(self.shares.pin_memory())


@dataclass(frozen=True)
class Letterbox:
    """How an image was brought to the network: scaled, put in the top left corner, padded right and below.

    Args:
        scale_xy: (network pixels per image pixel) for x and for y. They differ by rounding only.
        image_hw: height and width of the original image (EXIF orientation applied).
    """

    scale_xy: tuple[float, float]
    image_hw: tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """Images with their ground truth, as the loaders give them.

    Args:
        images: (B, H, W, 3) uint8, RGB, network input pixels, H and W multiples of 32. Channels come last because that
            is how they are decoded: ``images.permute(0, 3, 1, 2)`` is a channels-last NCHW tensor without a copy.
        targets: ground truth; boxes in network input pixels.
        rows: (B,) int64, each image's row in its table.
        letterboxes: how each image was placed; empty for augmented training batches and in classification.
        preprocess_seconds: what reading, scaling and padding took, in the process that did it; 0 where it is not
            measured.
    """

    images: Tensor
    targets: Targets | ClassTargets
    rows: Tensor
    letterboxes: Sequence[Letterbox] = ()
    preprocess_seconds: float = 0.0

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, for the copy to a GPU (called by PyTorch's ``DataLoader``)."""
        return replace(self, images=self.images.pin_memory(), targets=self.targets.pin_memory())


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best score first.

    Args:
        boxes_xyxy_px: (N, 4) float32, pixels of the original image, inside it.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64 class index, in [0, K).
        image_hw: height and width of the original image.
        names: the K class names.
        track_ids: (N,) int64, which object of a video it is, from 1; -1 where it is not known (yet). None without
            tracking.
    """

    boxes_xyxy_px: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    image_hw: tuple[int, int]
    names: tuple[str, ...]
    track_ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def class_names(self) -> list[str]:
        """The class name of each of the N detections."""
        return [self.names[label] for label in self.labels]

    def select(self, keep: np.ndarray) -> Detections:
        """The detections at ``keep``: (N,) bool or (n,) int indices."""
        track_ids = None if self.track_ids is None else self.track_ids[keep]
        return Detections(
            self.boxes_xyxy_px[keep], self.scores[keep], self.labels[keep], self.image_hw, self.names, track_ids
        )

    def to_supervision(self) -> dict[str, np.ndarray | dict[str, np.ndarray]]:
        """The keyword arguments of ``supervision.Detections``: ``sv.Detections(**found.to_supervision())``."""
        tracks = {} if self.track_ids is None else {"tracker_id": self.track_ids.astype(int)}
        return {
            "xyxy": self.boxes_xyxy_px.astype(np.float32),
            "confidence": self.scores.astype(np.float32),
            "class_id": self.labels.astype(int),
            **tracks,
            "data": {"class_name": np.array(self.class_names, dtype=np.str_)},
        }


@dataclass(frozen=True)
class Classification:
    """What an image shows.

    Args:
        probabilities: (K,) float32, of each class; they sum to 1.
        names: the K class names.
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
        """Names and probabilities of the ``count`` most probable classes, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.names[label], float(self.probabilities[label])) for label in order]
