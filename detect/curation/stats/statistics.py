"""Statistics of the boxes of a split: sizes, counts and places.

Letters: N images, M boxes that are trained on (no crowd regions), K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from detect.data.annotations import AnnotationTable
from detect.data.detection.box_sizes import SMALL_PX, is_trained_on, share_under, training_sizes_px
from detect.data.formats.coco_annotations import IMPOSSIBLE_AREA
from detect.drawing.text import shorten
from detect.errors import InputError
from detect.evaluation.crowding import Crowding, measure_crowding
from detect.runtime.logs import LOGGER

LIMITS_PX = (SMALL_PX, 16, 32)
"""Limits of the shorter side for shares of the boxes: cell sizes of the three levels of most detectors."""

AREA_LIMITS_PX = {"small": 32**2, "medium": 96**2, "large": np.inf}
"""Upper limits of COCO's area ranges, in pixels of the original image (https://cocodataset.org/#detection-eval)."""

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


@dataclass(frozen=True)
class DataStatistics:
    """The statistics of one split.

    Args:
        name: of the data set.
        split: its split.
        image_size: long side of the network input, pixels.
        names: the K class names.
        sizes_px: (M, 2) widths and heights in network-input pixels.
        areas_px: (M,) areas in pixels of the original image, as in COCO; width * height where the file has impossible
            areas.
        centres: (M, 2) x and y of the centres, as shares of the image's width and height.
        labels: (M,) class index.
        sizes_hw: (N, 2) heights and widths of the images.
        boxes_per_image: (N,).
        images_per_class: (K,) images with a box of the class.
        num_crowd: crowd regions, which are not among the M boxes.
        crowding: objects beyond the detection limits of an evaluation.
    """

    name: str
    split: str
    image_size: int
    names: tuple[str, ...]
    sizes_px: np.ndarray
    areas_px: np.ndarray
    centres: np.ndarray
    labels: np.ndarray
    sizes_hw: np.ndarray
    boxes_per_image: np.ndarray
    images_per_class: np.ndarray
    num_crowd: int
    crowding: Crowding

    def share_under(self, limit_px: float, image_size: int | None = None) -> float:
        """Return the share of the boxes whose shorter side is below a limit, at this or another image size."""
        return share_under(self.sizes_px, limit_px * self.image_size / (image_size or self.image_size))

    @property
    def long_side_px(self) -> int:
        """Median of the images' longer sides."""
        return int(np.median(self.sizes_hw.max(axis=1)))

    @property
    def boxes_per_class(self) -> np.ndarray:
        """(K,) boxes of each class."""
        return np.bincount(self.labels, minlength=len(self.names))


def measure(table: AnnotationTable, name: str, split: str, image_size: int) -> DataStatistics:
    """Compute the statistics of a split.

    Args:
        table: the split.
        name: of its data set.
        split: its name.
        image_size: long side of the network input, pixels.

    Raises:
        InputError: it has no box to train on.
    """
    if table.problems.count(IMPOSSIBLE_AREA):
        LOGGER.info("%s %s: the shares of small, medium and large boxes are by width * height", name, split)
        table = table.with_box_areas()
    is_used = is_trained_on(table)
    if not is_used.any():
        raise InputError(f"{name} {split}: has no boxes, so there is nothing to measure")
    rows = table.image_of_box[is_used]
    boxes, labels = table.boxes_xyxy_px[is_used], table.labels[is_used]
    pairs = np.unique(np.stack([rows, labels], axis=1), axis=0)
    return DataStatistics(
        name=name,
        split=split,
        image_size=image_size,
        names=table.names,
        sizes_px=training_sizes_px(table, image_size),
        areas_px=table.areas[is_used],
        centres=(boxes[:, :2] + boxes[:, 2:]) / 2 / table.sizes_hw[rows][:, ::-1],
        labels=labels,
        sizes_hw=table.sizes_hw,
        boxes_per_image=np.bincount(rows, minlength=len(table)),
        images_per_class=np.bincount(pairs[:, 1], minlength=len(table.names)),
        num_crowd=int(table.is_crowd.sum()),
        crowding=measure_crowding(table),
    )


def class_figures(statistics: DataStatistics) -> list[dict[str, Any]]:
    """Return the figures of each class, the most frequent first: ``name``, ``boxes``, ``images``, ``median_px``,
    ``under_8_px``.

    ``median_px`` is of the shorter sides in network-input pixels, ``under_8_px`` a share; both None without boxes.
    """
    rows = []
    for label in np.argsort(-statistics.boxes_per_class, kind="stable").tolist():
        sizes = statistics.sizes_px[statistics.labels == label]
        rows.append(
            {
                "name": shorten(statistics.names[label], 80),
                "boxes": len(sizes),
                "images": int(statistics.images_per_class[label]),
                "median_px": _rounded(np.median(sizes.min(axis=1))) if len(sizes) else None,
                "under_8_px": _rounded(share_under(sizes, SMALL_PX)) if len(sizes) else None,
            }
        )
    return rows


def figures(statistics: DataStatistics) -> dict[str, Any]:
    """Return all figures as JSON values: shares in [0, 1], sides in network-input pixels, areas as in COCO."""
    widths, heights = statistics.sizes_px.T
    sizes, counts = np.unique(statistics.sizes_hw, axis=0, return_counts=True)
    common = np.argsort(-counts, kind="stable")[:5]
    return {
        "data": shorten(statistics.name, 80),
        "split": shorten(statistics.split, 80),
        "image_size": statistics.image_size,
        "images": len(statistics.sizes_hw),
        "boxes": len(statistics.labels),
        "crowd_regions": statistics.num_crowd,
        "images_without_boxes": int((statistics.boxes_per_image == 0).sum()),
        "shorter_side_px": {
            **{f"under_{limit}": _rounded(statistics.share_under(limit)) for limit in LIMITS_PX},
            **_quantiles(statistics.sizes_px.min(axis=1)),
        },
        "area_in_image": _area_shares(statistics.areas_px),
        "box_width_by_height": _quantiles(widths / heights),
        "boxes_per_image": {**_quantiles(statistics.boxes_per_image), "max": int(statistics.boxes_per_image.max())},
        "objects_beyond_coco_limit": _rounded(statistics.crowding.beyond_limit / statistics.crowding.objects),
        "image_width_by_height": _quantiles(statistics.sizes_hw[:, 1] / statistics.sizes_hw[:, 0]),
        "image_sizes": [
            {"width": int(sizes[i, 1]), "height": int(sizes[i, 0]), "images": int(counts[i])} for i in common
        ],
        "different_image_sizes": len(sizes),
        "classes": class_figures(statistics),
    }


def _area_shares(areas_px: np.ndarray) -> dict[str, float]:
    places = np.searchsorted(list(AREA_LIMITS_PX.values()), areas_px)
    counts = np.bincount(places, minlength=len(AREA_LIMITS_PX))
    return {name: _rounded(count / len(areas_px)) for name, count in zip(AREA_LIMITS_PX, counts, strict=True)}


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {
        f"q{100 * q:.0f}": _rounded(value) for q, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    }


def _rounded(value: Any) -> float:
    return round(float(value), 4)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
