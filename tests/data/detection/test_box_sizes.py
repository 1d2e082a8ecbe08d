from __future__ import annotations

import numpy as np

from detect.data.annotations import AnnotationTable, encode_paths
from detect.data.detection.box_sizes import is_trained_on, share_under, training_sizes_px


def _table() -> AnnotationTable:
    """Images of 640 x 480 and 50 x 100 px with two boxes each; the second is a crowd, the fourth has no width."""
    return AnnotationTable(
        image_paths=encode_paths([]),
        image_ids=np.array([1, 2]),
        has_own_ids=False,
        sizes_hw=np.array([(480, 640), (100, 50)], np.int32),
        box_offsets=np.array([0, 2, 4]),
        boxes_xyxy_px=np.array([(0, 0, 10, 20), (0, 0, 600, 400), (5, 5, 15, 10), (3, 3, 3, 9)], np.float64),
        labels=np.zeros(4, np.int64),
        is_crowd=np.array([False, True, False, False]),
        areas=np.ones(4),
        names=("dog",),
        category_ids=np.array([1]),
    )


def test_sizes_in_network_pixels() -> None:
    """The long side becomes 320 px: factors 320 / 640 and 320 / 100. Crowd regions and empty boxes do not count."""
    assert is_trained_on(_table()).tolist() == [True, False, True, False]
    np.testing.assert_allclose(training_sizes_px(_table(), 320), [[5, 10], [32, 16]])


def test_the_shorter_side_counts() -> None:
    assert share_under(np.zeros((0, 2)), 8) == 0
    assert share_under(np.array([[7.9, 100], [8, 8], [100, 3], [9, 9]]), 8) == 0.5
