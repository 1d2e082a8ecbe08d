from __future__ import annotations

import pytest

from detect.papers.trd.schedule import area_rule, mean_flops


@pytest.mark.parametrize(
    ("resolution", "probability", "expected"),
    [
        (112, 0.5, 2.575),
        (112, 0.7, 1.957),
        (112, 0.9, 1.339),
        (84, 0.5, 2.3496875),
        (84, 0.7, 1.6415625),
        (84, 0.9, 0.9334375),
        (56, 0.5, 2.18875),
        (56, 0.7, 1.41625),
        (56, 0.9, 0.64375),
    ],
)
def test_table_of_the_paper(resolution: int, probability: float, expected: float) -> None:
    """4.12 G at 224 px: 84 px have (3/8)^2 = 9/64 of the pixels, so P = 0.5 gives 4.12 * (1 + 9/64) / 2."""
    assert mean_flops(4.12, area_rule(4.12, resolution, 224), probability) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reduced", "probability", "expected"),
    [
        (1_077_899_264, 0.5, 2_583_541_760),
        (1_077_899_264, 0.7, 1_981_284_762),
        (1_077_899_264, 0.9, 1_379_027_763),
        (684_342_016, 0.5, 2_386_763_136),
        (684_342_016, 0.7, 1_705_794_688),
        (684_342_016, 0.9, 1_024_826_240),
        (299_027_456, 0.5, 2_194_105_856),
        (299_027_456, 0.7, 1_436_074_496),
        (299_027_456, 0.9, 678_043_136),
    ],
)
def test_true_multiply_adds(reduced: int, probability: float, expected: int) -> None:
    """ResNet-50 has 4,089,184,256 at 224 px, and ``reduced`` at 112, 84 and 56 px."""
    assert mean_flops(4_089_184_256, reduced, probability) == pytest.approx(expected, abs=1)


def test_no_epoch_and_every_epoch() -> None:
    assert mean_flops(8.0, 2.0, 0.0) == 8.0
    assert mean_flops(8.0, 2.0, 1.0) == 2.0
    assert area_rule(8.0, 32, 32) == 8.0
    assert area_rule(8.0, 16, 32) == 2.0
