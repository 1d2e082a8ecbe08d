"""The scale sensitivity of a classifier; the command is tested in tests/tools/test_classes.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detect.api.evaluation_series import mean_cosine


def test_mean_cosine_by_hand() -> None:
    """Image 0: (1, 0), (0, 1) and (1, 1) / 2, cosines 0, 1 / sqrt 2 twice; image 1: three times the same."""
    probabilities = np.array([[[1, 0], [0.3, 0.7]], [[0, 1], [0.3, 0.7]], [[0.5, 0.5], [0.3, 0.7]]])
    assert mean_cosine(probabilities) == pytest.approx((2 / math.sqrt(2) / 3 + 1) / 2)


def test_images_without_an_answer_do_not_count() -> None:
    probabilities = np.array([[[1.0, 0], [0, 0]], [[1.0, 0], [1, 0]]])
    assert mean_cosine(probabilities) == pytest.approx(1)
    assert mean_cosine(np.zeros((2, 1, 2))) == 1
