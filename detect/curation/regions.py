"""Regions that are to be ignored whatever the class: in the arrays, a crowd region of each class with one box."""

from __future__ import annotations

import numpy as np

from detect.data.annotations import AnnotationTable


def of_every_class(table: AnnotationTable) -> np.ndarray:
    """(M,) bool, the crowd regions that stand for every class with the same box in their image."""
    result = np.zeros(len(table.labels), bool)
    crowds = np.flatnonzero(table.is_crowd)
    if len(table.names) > 1 and len(crowds):
        keys = np.column_stack([table.image_of_box[crowds], table.exact_xywh_px[crowds]])
        _, inverse, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        result[crowds] = counts[inverse.reshape(-1)] == len(table.names)
    return result
