from __future__ import annotations

import re

import pytest
import torch
import yaml

from detect.errors import InputError
from detect.models.blocks.normalise import Normalise
from detect.models.definition import normalisation_of, parse_definition, with_normalisation

ROWS = """
name: tiny
backbone:
  - {name: stem, module: Conv, args: {out_channels: 8, kernel_size: 3}}
  - {name: again, module: Concat, from: [image, stem]}
head:
  - {name: classify, module: Classify}
"""


def test_values() -> None:
    """(0.5 - 0.25) / 0.5 = 0.5, (0 - 0.5) / 0.25 = -2, (1 - 0) / 1 = 1."""
    x = torch.tensor([0.5, 0.0, 1.0]).view(1, 3, 1, 1)
    block = Normalise(3, mean=[0.25, 0.5, 0.0], std=[0.5, 0.25, 1])
    assert block(x).flatten().tolist() == [0.5, -2.0, 1.0]
    assert not block.state_dict()


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], [1, 1, 1], "mean: must be 3 numbers, found [0.5]"),
        (0.5, [1, 1, 1], "mean: must be 3 numbers, found 0.5"),
        ([0, 0, float("nan")], [1, 1, 1], "mean: must be 3 numbers, found [0, 0, nan]"),
        ([0, 0, 0], [1, 0, 1], "std: must be 3 numbers above 0, found [1, 0, 1]"),
        ([0, 0, 0], ["1", 1, 1], "std: must be 3 numbers above 0, found ['1', 1, 1]"),
        ([0, 0, 0], [True, 1, 1], "std: must be 3 numbers above 0, found [True, 1, 1]"),
    ],
)
def test_wrong_values(mean, std, message) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Normalise(3, mean, std)


def test_row_of_a_definition() -> None:
    """All that read the image read the row, which can be replaced and taken away."""
    plain = parse_definition(yaml.safe_load(ROWS), "here")
    args = {"mean": [0.5] * 3, "std": [0.25] * 3}
    once = with_normalisation(plain, args)
    assert [(row.name, row.inputs) for row in once.rows] == [
        ("normalise", ("image",)),
        ("stem", ("normalise",)),
        ("again", ("normalise", "stem")),
        ("classify", ("again",)),
    ]
    assert normalisation_of(once) == args
    other = {"mean": [0.1] * 3, "std": [0.2] * 3}
    assert normalisation_of(with_normalisation(once, other)) == other
    assert len(with_normalisation(once, other).rows) == 4
    assert with_normalisation(once, None) == plain
    assert normalisation_of(plain) is None
