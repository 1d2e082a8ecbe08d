"""Multiply-adds of instances, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from detect.models.build import build_graph
from detect.papers.sdpoint.transform import PLAIN, Instance, InstanceCosts, Way, instance_of, set_way
from tests.models.yamls import TINY, read_model, write_model

HEAD_PLAIN = 8 * 7 * 16 * 16 + 16 * 7 * 8 * 8
"""At 32 px, two classes and one anchor: 1x1 convolutions of 8 and 16 to 7 channels on 16 x 16 and 8 x 8 cells."""
STEM = 27 * 8 * 16 * 16


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        # Behind the stem there are 8 x 8 cells, behind the second convolution 4 x 4. The head reads the stem's 16 x 16.
        ("restore", STEM + 72 * 16 * 4 * 4 + HEAD_PLAIN),
        ("shrink", STEM + 72 * 16 * 4 * 4 + 8 * 7 * 16 * 16 + 16 * 7 * 4 * 4),
    ],
)
def test_by_hand(tmp_path: Path, way: Way, expected: int) -> None:
    graph = build_graph(read_model(write_model(tmp_path, TINY)), 2)
    set_way(graph, way)
    costs = InstanceCosts(graph, 2)
    assert costs.macs(Instance(1, 0.5), (32, 32)) == expected
    assert costs.macs(PLAIN, (32, 32)) == STEM + 72 * 16 * 8 * 8 + HEAD_PLAIN
    assert costs.macs(PLAIN, (64, 32)) == 2 * costs.macs(PLAIN, (32, 32))
    assert instance_of(graph) == PLAIN
