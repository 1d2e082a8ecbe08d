"""Objects of a split beyond the number of detections that are counted and kept of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detect.data.annotations import AnnotationTable
from detect.evaluation.coco import COCO_LIMIT
from detect.evaluation.postprocess import CLASSES_AT_LIMIT, COCO_SETTINGS, settings_for_limit
from detect.runtime.logs import LOGGER

ROUND_LIMIT = 100
"""A proposed limit is a multiple of it."""


@dataclass(frozen=True)
class Crowding:
    """Objects of a split, without crowd regions, compared with the limits of detections.

    Args:
        num_classes: K.
        limit: detections of a class and image that are counted.
        kept: detections of an image, of all classes together, that are kept.
        objects: of the split.
        beyond_limit: objects beyond ``limit`` of their class in their image.
        beyond_kept: objects beyond ``kept`` in their image.
        most_of_class: maximum number of objects of a class in an image.
        most: maximum number of objects of an image.
    """

    num_classes: int
    limit: int
    kept: int
    objects: int
    beyond_limit: int
    beyond_kept: int
    most_of_class: int
    most: int

    @property
    def is_within(self) -> bool:
        """True if perfect detections reach an AP of 1."""
        return not self.beyond_limit and not self.beyond_kept

    @property
    def sufficient_limit(self) -> int:
        """Smallest round ``--max-det`` of an evaluation beyond which no object lies."""
        most = self.most if self.most > COCO_SETTINGS.max_detections else 0
        wanted = max(self.most_of_class, -(-most // min(self.num_classes, CLASSES_AT_LIMIT)))
        return -(-wanted // ROUND_LIMIT) * ROUND_LIMIT

    def line(self) -> str:
        """Shares of the objects beyond the limits, for a message."""
        parts = []
        if self.beyond_limit:
            parts.append(
                f"{_percent(self.beyond_limit, self.objects)} of the objects lie beyond the {self.limit} detections of "
                f"a class and image that the metrics count (an image has up to {self.most_of_class:,} of a class)"
            )
        if self.beyond_kept:
            parts.append(
                f"{_percent(self.beyond_kept, self.objects)} of the objects lie beyond the {self.kept} detections of "
                f"an image that are kept (an image has up to {self.most:,} objects)"
            )
        return ", and ".join(parts)


def measure_crowding(table: AnnotationTable, limit: int | None = None) -> Crowding:
    """Count the objects of a split beyond the limits of an evaluation.

    Args:
        table: the split.
        limit: ``--max-det``; None: COCO's, with the detections that are kept by default.
    """
    num_classes = len(table.names)
    settings = COCO_SETTINGS if limit is None else settings_for_limit(COCO_SETTINGS, limit, num_classes)
    limit, kept = COCO_LIMIT if limit is None else limit, settings.max_detections
    is_object = ~table.is_crowd
    rows = np.repeat(np.arange(len(table)), np.diff(table.box_offsets))[is_object]
    _, of_class = np.unique(np.stack([rows, table.labels[is_object]]), axis=1, return_counts=True)
    of_image = np.bincount(rows, minlength=1)
    return Crowding(
        num_classes=num_classes,
        limit=limit,
        kept=kept,
        objects=len(rows),
        beyond_limit=int((of_class - limit).clip(min=0).sum()),
        beyond_kept=int((of_image - kept).clip(min=0).sum()),
        most_of_class=int(of_class.max(initial=0)),
        most=int(of_image.max(initial=0)),
    )


def warn_of_crowding(name: str, table: AnnotationTable, limit: int | None = None) -> None:
    """Warn of objects beyond the limits of an evaluation of the split ``name``; see ``measure_crowding``."""
    crowding = measure_crowding(table, limit)
    if not crowding.is_within:
        LOGGER.warning(
            "%s: %s, so that perfect detections do not reach an AP of 1; detect val --max-det %d counts all",
            name,
            crowding.line(),
            crowding.sufficient_limit,
        )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"
