"""A part of a split's classes, or all of them as one.

Letters: K classes, M boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from detect.data.annotations import AnnotationTable, offsets_of

OBJECT = "object"
"""Name of the only class of ``as_single_class``."""


def with_classes(table: AnnotationTable, keep: Sequence[int]) -> AnnotationTable:
    """Return the split with some of its classes, in the order of ``keep``, and with all images.

    Args:
        table: the split.
        keep: indices of the classes; the boxes of others are left out.
    """
    new_label = np.full(len(table.names), -1, np.int64)
    new_label[list(keep)] = np.arange(len(keep))
    labels = new_label[table.labels]
    has_class = labels >= 0
    per_image = np.bincount(table.image_of_box[has_class], minlength=len(table))
    return replace(
        table,
        box_offsets=offsets_of(per_image),
        boxes_xyxy_px=table.boxes_xyxy_px[has_class],
        labels=labels[has_class],
        is_crowd=table.is_crowd[has_class],
        areas=table.areas[has_class],
        names=tuple(table.names[index] for index in keep),
        category_ids=table.category_ids[list(keep)],
        boxes_xywh_px=None if table.boxes_xywh_px is None else table.boxes_xywh_px[has_class],
        marks={name: values[has_class] for name, values in table.marks.items()},
        positions=None if table.positions is None else table.positions[has_class],
        category_ids_json=None if table.category_ids_json is None else table.category_ids_json[list(keep)],
    )


def as_single_class(table: AnnotationTable) -> AnnotationTable:
    """Return the split with one class, ``OBJECT`` of id 1, for all boxes."""
    return replace(
        table,
        labels=np.zeros_like(table.labels),
        names=(OBJECT,),
        category_ids=np.array([1]),
        category_ids_json=None,
    )
