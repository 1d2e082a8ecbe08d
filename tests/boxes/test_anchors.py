from __future__ import annotations

import numpy as np
import pytest

from detect.boxes.anchors import AnchorFit, best_possible_recall, close_recall, fit_anchors, fittable_sizes


def test_recall_without_boxes() -> None:
    assert best_possible_recall(np.zeros((0, 2)), np.array([[10.0, 10.0]]), 4.0) == 1.0


def test_recall_of_one_box() -> None:
    for size, covered in [
        ([10, 10], True),
        ([39.9, 10], True),
        ([40, 10], False),  # the factor 4 itself does not match
        ([10, 2.6], True),
        ([10, 2.5], False),
        ([39.9, 2.6], True),  # each side is judged alone
        ([100, 400], True),  # by the second anchor
        ([39.9, 400], True),
        ([10, 400], False),  # width fits the one anchor, height the other
    ]:
        anchors = np.array([[10.0, 10.0], [100.0, 200.0]])
        assert best_possible_recall(np.array([size]), anchors, 4.0) == float(covered)


def test_recall_is_a_share() -> None:
    sizes = np.array([[10.0, 10.0], [50.0, 10.0], [12.0, 12.0], [9.0, 9.0]])
    assert best_possible_recall(sizes, np.array([[10.0, 10.0]]), 4.0) == 0.75


def test_close_recall_without_boxes() -> None:
    assert close_recall(np.zeros((0, 2)), np.array([[10.0, 10.0]]), 0.25) == 1.0


def test_close_recall() -> None:
    """IoU with the better of 10 x 10 and 100 x 200: 1; 25 / 100; 25 / 101; 100 / 400; 2500 / 20000; 15000 / 20000."""
    sizes = np.array([[10, 10], [5, 5], [4.95, 5.05], [40, 10], [50, 50], [75, 200]])
    anchors = np.array([[10.0, 10.0], [100.0, 200.0]])
    for size, close in zip(sizes, [True, True, False, True, False, True], strict=True):
        assert close_recall(size[None], anchors, 0.25) == float(close), size
    assert close_recall(sizes, anchors, 0.25) == pytest.approx(4 / 6)


CENTRES = np.array([[12.0, 20.0], [60.0, 15.0], [40.0, 150.0]])
"""By area; by width or height the order is another."""


def clustered(seed: int) -> np.ndarray:
    """60, 30 and 10 boxes around each of the centres, 5 % apart."""
    rng = np.random.default_rng(seed)
    return np.repeat(CENTRES, (60, 30, 10), axis=0) * np.exp(rng.normal(0, 0.05, (100, 2)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_clusters_are_found_and_sorted(seed: int) -> None:
    anchors = fit_anchors(clustered(seed), AnchorFit(3), seed=0)
    assert anchors.prod(axis=1).tolist() == sorted(anchors.prod(axis=1))
    np.testing.assert_allclose(anchors, CENTRES, rtol=0.05)


def test_one_anchor_is_the_geometric_mean() -> None:
    # sqrt(10 * 40) = 20, sqrt(20 * 5) = 10
    np.testing.assert_allclose(fit_anchors(np.array([[10.0, 20.0], [40.0, 5.0]]), AnchorFit(1), seed=3), [[20, 10]])


def test_fitting_is_reproducible() -> None:
    sizes = np.random.default_rng(7).uniform(5, 300, (300, 2))
    np.testing.assert_array_equal(fit_anchors(sizes, AnchorFit(9), seed=5), fit_anchors(sizes, AnchorFit(9), seed=5))


def test_fitted_anchors_cover_more() -> None:
    sizes = np.exp(np.random.default_rng(8).normal(np.log(40), 0.8, (500, 2)))
    fitted = fit_anchors(sizes, AnchorFit(9), seed=0)
    assert best_possible_recall(sizes, fitted, 2.0) > best_possible_recall(sizes, np.array([[40.0, 40.0]]), 2.0) + 0.2


@pytest.mark.parametrize("number", [1, 5])
def test_fewer_distinct_sizes_than_anchors(number: int) -> None:
    sizes = np.tile([[20.0, 30.0]], (number, 1))
    anchors = fit_anchors(sizes, AnchorFit(9), seed=0)
    assert anchors.shape == (9, 2)
    assert (anchors > 0).all()
    assert len(np.unique(anchors, axis=0)) == 9
    assert np.abs(np.log(anchors / [20, 30])).max() < np.log(4)  # near enough to match, most of them
    assert best_possible_recall(sizes, anchors, 4.0) == 1.0


def test_sizes_that_anchors_are_fitted_to() -> None:
    """Both sides are finite and at least one pixel; there may be none."""
    sizes = np.array([[10, 20], [0.0003, 2], [1, 1], [0.99, 5], [np.nan, 5], [5, np.inf]])
    assert fittable_sizes(sizes).tolist() == [[10, 20], [1, 1]]
    assert fittable_sizes(np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("number", [1, 5])
def test_no_fitted_anchor_is_under_a_pixel(number: int) -> None:
    """Around boxes of one pixel, anchors are spread to one side only."""
    anchors = fit_anchors(np.ones((number, 2)), AnchorFit(9), seed=0)
    assert anchors.min() == 1
    assert anchors.max() < 4


@pytest.mark.parametrize("method", ["iou-kmeans", "genetic"])
def test_other_methods_find_clusters_too(method) -> None:
    sizes = clustered(0)
    anchors = fit_anchors(sizes, AnchorFit(3, method), seed=0)
    np.testing.assert_allclose(anchors, CENTRES, rtol=0.05)
    np.testing.assert_array_equal(fit_anchors(sizes, AnchorFit(3, method), seed=0), anchors)


def test_one_anchor_by_iou_is_the_arithmetic_mean() -> None:
    """(10 + 40 + 40) / 3, (20 + 5 + 5) / 3: YOLOv2's k-means takes the mean of the sides."""
    found = fit_anchors(np.array([[10.0, 20.0], [40.0, 5.0], [40.0, 5.0]]), AnchorFit(1, "iou-kmeans"), seed=3)
    np.testing.assert_allclose(found, [[30, 10]])


def test_random_changes_bring_boxes_closer() -> None:
    """In the mean of 1 / the worse ratio, of boxes within the ratio; k-means minimises another distance."""
    sizes = np.exp(np.random.default_rng(8).normal(np.log(40), 0.8, (200, 2)))

    def closeness(anchors: np.ndarray) -> float:
        ratio = sizes[:, None] / anchors[None]
        worst = np.maximum(ratio, 1 / ratio).max(axis=2).min(axis=1)
        return float(np.mean(np.where(worst < 2, 1 / worst, 0)))

    start, refined = (fit_anchors(sizes, AnchorFit(3, m, 2.0), seed=0) for m in ("log-kmeans", "genetic"))
    assert closeness(refined) > closeness(start) + 0.01
