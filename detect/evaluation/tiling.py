"""Detection in overlapping tiles of a large image and in the whole image, merged to one result.

Letters: H W pixels, K classes, V views of an image (its tiles and the whole image), N boxes of all views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detect.boxes.array_nms import suppress
from detect.boxes.tiles import MAX_OVERLAP, MIN_TILE_PX, ends_at_edge, find_fragments, tile_windows
from detect.data.letterbox import letterbox, pad_batch
from detect.errors import InputError
from detect.evaluation.postprocess import COCO_SETTINGS, Forward, PredictSettings, postprocess
from detect.structures import Detections

ROOM_FOR_FRAGMENTS = 4
MIN_OF_VIEW = 512
"""Detections kept of a view: four times those of the image, at least 512; fragments are removed afterwards."""

EDGE_PX = 2.0
"""A box that ends within this distance of a view's edge, in network pixels, is cut by it."""


@dataclass(frozen=True)
class Tiling:
    """Division of an image into tiles.

    Args:
        tile: side of a tile in pixels of the original image.
        overlap: minimum share of its side that a tile has in common with the next one.

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
        """(V, 4) int64, the views of an image, the whole one last; see ``tile_windows``."""
        return tile_windows(image_hw, self.tile, self.overlap)


TILED_COCO_SETTINGS = replace(COCO_SETTINGS, max_detections=1000)
"""For measuring AP with tiles. A large image may have more objects than the 300 detections that suffice for a
photograph: on images of about 180 and of 340 objects, 300 cost 0.7 and 2.9 points of AP; more than 1,000 gained
nothing."""


@dataclass(frozen=True)
class TiledDetector:
    """Detection in the views of an image.

    Args:
        network: runs on the views.
        tiling: division of the image.
        image_size: long side of the network input in pixels, to which each view is scaled.
        batch_size: maximum number of views that go through the network together.
        multiple: divides height and width of the network input.
        settings: score threshold and non-maximum suppression, of all views together.
        names: the K class names.
        lap: called after each part with its name: ``preprocess``, ``network`` or ``postprocess``.
    """

    network: Forward
    tiling: Tiling
    image_size: int
    batch_size: int
    multiple: int
    settings: PredictSettings
    names: tuple[str, ...]
    lap: Callable[[str], None] = lambda part: None

    def detect(self, image_rgb: np.ndarray) -> Detections:
        """Detections in an image (H, W, 3) uint8, in its pixels."""
        windows = self.tiling.windows((image_rgb.shape[0], image_rgb.shape[1]))
        last = len(windows) - 1
        if last == 0:
            return self._detect_views(image_rgb, windows, self.settings)[0]
        # ``max_detections`` is of the whole image; a view keeps more, because its fragments are removed.
        room = max(MIN_OF_VIEW, ROOM_FOR_FRAGMENTS * self.settings.max_detections)
        everything = replace(self.settings, max_detections=room)
        found: list[Detections] = []
        for start in range(0, last, self.batch_size):
            found += self._detect_views(image_rgb, windows[start : min(start + self.batch_size, last)], everything)
        found += self._detect_views(
            image_rgb, windows[last:], everything
        )  # alone, so that it is padded as without tiles
        merged = self._merge(found, windows)
        self.lap("postprocess")
        return merged

    def _detect_views(self, image_rgb: np.ndarray, windows: np.ndarray, settings: PredictSettings) -> list[Detections]:
        """Detections in views of one size, in pixels of the view."""
        placed = [letterbox(image_rgb[top:bottom, left:right], self.image_size) for left, top, right, bottom in windows]
        images = pad_batch([image for image, _ in placed], self.multiple)
        self.lap("preprocess")
        predictions = self.network(images)
        self.lap("network")
        found = postprocess(predictions, [placement for _, placement in placed], settings, self.names)
        self.lap("postprocess")
        return found

    def _merge(self, found: Sequence[Detections], windows: np.ndarray) -> Detections:
        """Detections of all views in the image's pixels, without fragments and duplicates."""
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
            *(boxes[keep], scores[keep], labels[keep]),
            self.settings.iou_threshold,
            self.settings.max_detections,
            self.settings.class_agnostic,
        )
        return Detections(
            *(best_boxes, best_scores, best_labels),
            (height, width),
            self.names,
            reached_limit=len(best_scores) >= self.settings.max_detections,
        )
