"""Detection in tiles: a large image is looked at piece by piece and as a whole, and what is found becomes one.

Letters: B views that go through the network together, H W network input pixels, P predictions per view, K classes,
V views of an image, N boxes that they gave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from detect.boxes.nms import suppress
from detect.boxes.tiles import ends_at_edge, find_fragments, tile_windows
from detect.data.letterbox import letterbox, pad_batch
from detect.errors import InputError
from detect.evaluation.predict import COCO_SETTINGS, PredictSettings, postprocess
from detect.structures import Detections

Network = Callable[[Tensor], Tensor]
"""(B, H, W, 3) uint8 RGB to (B, P, 5 + K), see ``detect.evaluation.predict.run_network``."""

MIN_TILE_PX = 32
MAX_OVERLAP = 0.9
"""Beyond these an image has thousands of tiles: a slip of the keyboard."""

ROOM_FOR_FRAGMENTS = 4
MIN_OF_VIEW = 512
"""A view gives up to four times the detections that are kept of the image, and never less than 512."""

EDGE_PX = 2.0
"""Network pixels from the edge of a view within which a box ends at it."""


@dataclass(frozen=True)
class Tiling:
    """How an image is divided.

    Args:
        tile: side of a tile in pixels of the original image.
        overlap: least share of its side that a tile has in common with the next one.

    Raises:
        InputError: a value is outside its range.
    """

    tile: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.tile < MIN_TILE_PX:
            raise InputError(f"tile: must be at least {MIN_TILE_PX} pixels, found {self.tile}")
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise InputError(f"overlap: must be from 0 to {MAX_OVERLAP}, a share of the tile; found {self.overlap:g}")

    def windows(self, image_hw: tuple[int, int]) -> np.ndarray:
        """(V, 4) int64, the views of an image; see ``tile_windows``."""
        return tile_windows(image_hw, self.tile, self.overlap)


TILED_COCO_SETTINGS = replace(COCO_SETTINGS, max_detections=1000)
"""For measuring AP with tiles. COCO counts 100 detections per class and image, but a large image may have more objects
than the 300 in all that do for a photograph: on boards of about 180 and of 340 objects, 300 cost 0.7 and 2.9 points of
AP, and more than 1,000 gained nothing."""


@dataclass(frozen=True)
class TiledPredictor:
    """Finds what is in an image, through its views.

    Args:
        network: what looks at them.
        tiling: how an image is divided.
        image_size: long side of the network input in pixels; every view is scaled to it as an image is.
        batch_size: views that go through the network together, at most.
        multiple: H and W are multiples of it.
        settings: what becomes of the raw predictions of all views together.
        names: the K class names.
        lap: is told what was done since it was told last: ``preprocess``, ``network`` or ``postprocess``.
    """

    network: Network
    tiling: Tiling
    image_size: int
    batch_size: int
    multiple: int
    settings: PredictSettings
    names: tuple[str, ...]
    lap: Callable[[str], None] = lambda part: None

    def predict(self, image_rgb: np.ndarray) -> Detections:
        """The detections in an image (H, W, 3) uint8, in its pixels."""
        windows = self.tiling.windows((image_rgb.shape[0], image_rgb.shape[1]))
        last = len(windows) - 1
        if last == 0:
            return self._look(image_rgb, windows, self.settings)[0]
        # The best so many are to be those of the image. A view gives more: its fragments will go.
        room = max(MIN_OF_VIEW, ROOM_FOR_FRAGMENTS * self.settings.max_detections)
        everything = replace(self.settings, max_detections=room)
        found: list[Detections] = []
        for start in range(0, last, self.batch_size):
            found += self._look(image_rgb, windows[start : min(start + self.batch_size, last)], everything)
        found += self._look(image_rgb, windows[last:], everything)  # alone, so that it is padded as without tiles
        merged = self._merged(found, windows)
        self.lap("postprocess")
        return merged

    def _look(self, image_rgb: np.ndarray, windows: np.ndarray, settings: PredictSettings) -> list[Detections]:
        """What is found in each of some views of one size, in pixels of the view."""
        placed = [letterbox(image_rgb[top:bottom, left:right], self.image_size) for left, top, right, bottom in windows]
        images = torch.from_numpy(pad_batch([image for image, _ in placed], self.multiple))
        self.lap("preprocess")
        predictions = self.network(images)
        self.lap("network")
        found = postprocess(predictions, [placement for _, placement in placed], settings, self.names)
        self.lap("postprocess")
        return found

    def _merged(self, found: Sequence[Detections], windows: np.ndarray) -> Detections:
        """What all views of an image found, in its pixels, each object once."""
        *_, width, height = windows[-1].tolist()
        views = np.repeat(np.arange(len(windows)), [len(one) for one in found])
        origins = windows[views][:, [0, 1, 0, 1]].astype(np.float32)
        boxes = np.concatenate([one.boxes_xyxy_px for one in found]) + origins
        scores = np.concatenate([one.scores for one in found])
        labels = np.concatenate([one.labels for one in found])

        margin_px = EDGE_PX * (windows[0, 2:] - windows[0, :2]).max() / self.image_size  # only tiles have inner edges
        is_cut = ends_at_edge(boxes, windows[views], (height, width), margin_px)
        kinds = np.zeros_like(labels) if self.settings.class_agnostic else labels
        keep = np.flatnonzero(~find_fragments(boxes, scores, kinds, views, is_cut))
        keep = keep[np.argsort(-scores[keep], kind="stable")]
        best_boxes, best_scores, best_labels = suppress(
            torch.from_numpy(boxes[keep]),
            torch.from_numpy(scores[keep]),
            torch.from_numpy(labels[keep]),
            self.settings.iou_threshold,
            self.settings.max_detections,
            self.settings.class_agnostic,
        )
        return Detections(
            best_boxes.numpy(),
            best_scores.numpy(),
            best_labels.numpy(),
            (height, width),
            self.names,
            reached_limit=len(best_scores) >= self.settings.max_detections,
        )
