from __future__ import annotations

import numpy as np
import pytest
import torch

from detect.boxes.anchors import best_possible_recall, cell_grid, decode_boxes, fit_anchors


def test_cell_grid_is_column_then_row() -> None:
    grid = cell_grid(2, 3, torch.zeros(1, dtype=torch.float64))
    assert grid.dtype == torch.float64
    assert grid.tolist() == [[[0, 0], [1, 0], [2, 0]], [[0, 1], [1, 1], [2, 1]]]


@pytest.mark.parametrize(
    ("probability", "centre_in_cells", "size_in_anchors"),
    [
        (0.5, 0.5, 1.0),  # 2 * 0.5 - 0.5 and (2 * 0.5)^2: the middle of the cell, the anchor itself
        (0.0, -0.5, 0.0),  # half a cell before
        (1.0, 1.5, 4.0),  # half a cell behind, four times the anchor
        (0.75, 1.0, 2.25),
    ],
)
def test_decoded_boxes(probability: float, centre_in_cells: float, size_in_anchors: float) -> None:
    anchors_px = torch.tensor([[10.0, 20.0], [30.0, 5.0]])
    boxes = decode_boxes(torch.full((1, 2, 3, 4, 4), probability), anchors_px, reduction=8)
    assert boxes.shape == (1, 2, 3, 4, 4)
    for anchor in range(2):
        for row in range(3):
            for column in range(4):
                centre = [(centre_in_cells + column) * 8, (centre_in_cells + row) * 8]
                size = (anchors_px[anchor] * size_in_anchors).tolist()
                assert boxes[0, anchor, row, column].tolist() == centre + size


def test_every_box_the_assignment_allows_can_be_decoded() -> None:
    """Centres from half a cell before to half a cell behind, sides below 4 anchors, and nothing outside of that."""
    values = torch.rand(1, 1, 5, 5, 4, generator=torch.Generator().manual_seed(0))
    boxes = decode_boxes(values, torch.tensor([[8.0, 8.0]]), reduction=8)
    offset = boxes[..., :2] / 8 - cell_grid(5, 5, values)
    assert -0.5 <= offset.min() < offset.max() <= 1.5
    assert 0 <= boxes[..., 2:].min() < boxes[..., 2:].max() <= 32


def test_recall_without_boxes() -> None:
    assert best_possible_recall(np.zeros((0, 2)), np.array([[10.0, 10.0]]), 4.0) == 1.0


@pytest.mark.parametrize(
    ("size", "covered"),
    [
        ([10, 10], True),
        ([39.9, 10], True),
        ([40, 10], False),  # the factor 4 itself does not match
        ([10, 2.6], True),
        ([10, 2.5], False),
        ([39.9, 2.6], True),  # each side is judged alone
        ([100, 400], True),  # by the second anchor
        ([39.9, 400], True),
        ([10, 400], False),  # width fits the one anchor, height the other
    ],
)
def test_recall_of_one_box(size: list[float], covered: bool) -> None:
    anchors = np.array([[10.0, 10.0], [100.0, 200.0]])
    assert best_possible_recall(np.array([size]), anchors, 4.0) == float(covered)


def test_recall_is_a_share() -> None:
    sizes = np.array([[10.0, 10.0], [50.0, 10.0], [12.0, 12.0], [9.0, 9.0]])
    assert best_possible_recall(sizes, np.array([[10.0, 10.0]]), 4.0) == 0.75


CENTRES = np.array([[12.0, 20.0], [60.0, 15.0], [40.0, 150.0]])
"""By area; by width or height the order is another."""


def clustered(seed: int) -> np.ndarray:
    """60, 30 and 10 boxes around each of the centres, 5 % apart."""
    rng = np.random.default_rng(seed)
    return np.repeat(CENTRES, (60, 30, 10), axis=0) * np.exp(rng.normal(0, 0.05, (100, 2)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_clusters_are_found_and_sorted(seed: int) -> None:
    anchors = fit_anchors(clustered(seed), 3, seed=0)
    assert anchors.prod(axis=1).tolist() == sorted(anchors.prod(axis=1))
    np.testing.assert_allclose(anchors, CENTRES, rtol=0.05)


def test_one_anchor_is_the_geometric_mean() -> None:
    # sqrt(10 * 40) = 20, sqrt(20 * 5) = 10
    np.testing.assert_allclose(fit_anchors(np.array([[10.0, 20.0], [40.0, 5.0]]), 1, seed=3), [[20, 10]])


def test_fitting_is_reproducible() -> None:
    sizes = np.random.default_rng(7).uniform(5, 300, (300, 2))
    np.testing.assert_array_equal(fit_anchors(sizes, 9, seed=5), fit_anchors(sizes, 9, seed=5))


def test_fitted_anchors_cover_more() -> None:
    sizes = np.exp(np.random.default_rng(8).normal(np.log(40), 0.8, (500, 2)))
    fitted = fit_anchors(sizes, 9, seed=0)
    assert best_possible_recall(sizes, fitted, 2.0) > best_possible_recall(sizes, np.array([[40.0, 40.0]]), 2.0) + 0.2


@pytest.mark.parametrize("number", [1, 5])
def test_fewer_distinct_sizes_than_anchors(number: int) -> None:
    sizes = np.tile([[20.0, 30.0]], (number, 1))
    anchors = fit_anchors(sizes, 9, seed=0)
    assert anchors.shape == (9, 2)
    assert (anchors > 0).all()
    assert len(np.unique(anchors, axis=0)) == 9
    assert np.abs(np.log(anchors / [20, 30])).max() < np.log(4)  # near enough to match, most of them
    assert best_possible_recall(sizes, anchors, 4.0) == 1.0
