"""Cross-entropy of hard, mixed and smoothed targets."""

from __future__ import annotations

import math

import pytest
import torch

from detect.losses.classification import ClassificationLoss
from detect.structures import ClassTargets


def loss_of(logits, shares, label_smoothing=0.0):
    terms = ClassificationLoss(label_smoothing)(torch.tensor(logits), ClassTargets(torch.tensor(shares)))
    assert terms.values()["classes"] == pytest.approx(float(terms.total))
    return float(terms.total)


def test_undecided_logits_cost_the_logarithm_of_the_classes():
    assert loss_of([[0.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]) == pytest.approx(math.log(3))


def test_the_mean_over_the_images():
    """Probabilities 3/4 and 1/4: the first image costs log(4/3), the second log(4)."""
    logits = [[math.log(3), 0.0], [math.log(3), 0.0]]
    expected = (math.log(4 / 3) + math.log(4)) / 2
    assert loss_of(logits, [[1.0, 0.0], [0.0, 1.0]]) == pytest.approx(expected)


def test_mixed_images_cost_by_their_shares():
    """0.25 * log(4/3) + 0.75 * log(4), with the probabilities from above."""
    expected = 0.25 * math.log(4 / 3) + 0.75 * math.log(4)
    assert loss_of([[math.log(3), 0.0]], [[0.25, 0.75]]) == pytest.approx(expected)


def test_smoothing_spreads_a_part_over_all_classes():
    """Of the target 1, 0.2 goes in halves to both classes: 0.9 and 0.1."""
    expected = 0.9 * math.log(4 / 3) + 0.1 * math.log(4)
    assert loss_of([[math.log(3), 0.0]], [[1.0, 0.0]], label_smoothing=0.2) == pytest.approx(expected)


def test_accuracy_on_the_batch():
    """Of four images three are right; the last one is mixed, and its larger share counts."""
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    shares = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.7, 0.3]])
    assert ClassificationLoss()(logits, ClassTargets(shares)).values()["train/top1"] == 0.75
    exits = torch.stack([-logits, logits], dim=1)  # the first exit has three wrong; the last one counts
    assert ClassificationLoss()(exits, ClassTargets(shares)).values()["train/top1"] == 0.75


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.full((1, 1000), 8.0, dtype=torch.bfloat16)
    shares = torch.zeros(1, 1000)
    shares[0, 3] = 1.0
    # In bfloat16 log(1000) = 6.9078 would be 6.90625.
    assert float(ClassificationLoss()(logits, ClassTargets(shares)).total) == pytest.approx(math.log(1000), rel=1e-6)
