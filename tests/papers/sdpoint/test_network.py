"""The choice of an instance within a budget, and what it does to a detector and a classifier."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch

from detect import Classifier, Detector
from detect.errors import InputError
from detect.inference import timing
from detect.models.checkpoint import Checkpoint
from detect.papers.sdpoint.instances import instances_in, with_instances
from detect.papers.sdpoint.transform import PLAIN, Instance, InstanceCosts, Way, instance_of
from tests.papers.sdpoint.samples import RECORDS, classifier, detector, record


@pytest.fixture
def predictor(tmp_path: Path) -> Detector:
    """Of ``RECORDS``: shares 1, 0.25, 0.6, 0.65 and 0.9 with AP 0.5, 0.3, 0.45, 0.4 and 0.52."""
    return Detector(detector(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("budget", "expected", "share"),
    [
        (0.25, Instance(1, 0.5), 0.25),
        (0.59, Instance(1, 0.5), 0.25),
        (0.6, Instance(1, 0.75), 0.6),
        (0.65, Instance(1, 0.75), 0.6),  # 2@0.5 costs as much, and has less AP than the cheaper one
        (0.9, Instance(2, 0.75), 0.9),
        (0.999, Instance(2, 0.75), 0.9),
        (1.0, PLAIN, 1.0),  # the full network, although 2@0.75 has more AP
        (1, PLAIN, 1.0),
    ],
)
def test_a_share_of_the_cost(predictor: Detector, budget: float, expected: Instance, share: float) -> None:
    predictor.cost = budget
    assert instance_of(predictor._network.model) == expected
    assert predictor.cost == share


def test_shares_are_compared_as_tables_show_them(tmp_path: Path) -> None:
    """1/3 is shown as 0.333, which somebody then types."""
    predictor = Detector(detector(tmp_path, (record(0, 1.0, 300, 0.5), record(1, 0.5, 100, 0.3))), device="cpu")
    predictor.cost = 0.333
    assert predictor.cost == pytest.approx(1 / 3)


def test_of_equally_good_ones_the_cheapest(tmp_path: Path) -> None:
    records = (record(0, 1.0, 1000, 0.5), record(2, 0.5, 600, 0.4), record(1, 0.5, 400, 0.4))
    predictor = Detector(detector(tmp_path, records), device="cpu")
    predictor.cost = 0.7
    assert predictor.cost == 0.4


def test_the_line_says_what_was_chosen(predictor: Detector) -> None:
    found = predictor.choose(cost=0.7)
    assert found.line() == "instance 1@0.75: costs 0.600 of the full network; AP 0.450 (shapes val, 32 px)"
    assert predictor.choose(cost=1.0).line() == "instance plain: the full network"


def test_operations_are_those_of_the_size_in_use(tmp_path: Path) -> None:
    """At 64 px everything costs four times what it does at 32 px; the network has no fully connected layer."""
    checkpoint = detector(tmp_path, way="shrink")
    predictor, costs = Detector(checkpoint, device="cpu"), InstanceCosts(checkpoint.model.graph, 2)
    gflops = {one: 2e-9 * costs.macs(one, (32, 32)) for one in instances_in(checkpoint).members}
    cheap, good = gflops[Instance(1, 0.75)], gflops[Instance(2, 0.75)]
    assert gflops[Instance(1, 0.5)] < cheap < gflops[Instance(2, 0.5)] < good
    found = predictor.choose(gflops=1.001 * cheap)
    assert found.line().startswith(f"instance 1@0.75: needs {cheap:.4g} GFLOPs at 32 px; AP 0.450 ")
    assert predictor.choose(gflops=1.001 * good).name == "2@0.75"
    assert predictor.choose(gflops=1.001 * 4 * cheap, image_size=64).name == "1@0.75"
    assert predictor.choose(gflops=99).name == "2@0.75"  # more AP than the plain network
    cheapest = f"1@0.5 needs {gflops[Instance(1, 0.5)]:.4g} GFLOPs at 32 px"
    with pytest.raises(InputError, match=rf"^gflops 1e-05: no instance is within it; {cheapest}$"):
        predictor.choose(gflops=1e-5)


def test_milliseconds_are_measured_here(predictor: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any network is faster than a minute, so that the best one is taken; none is as fast as a nanosecond."""
    monkeypatch.setattr(timing, "MAX_ROUNDS", 3)
    found = predictor.choose(target_ms=60_000)
    assert found.name == "2@0.75"
    assert found.line().startswith("instance 2@0.75: takes ")
    with pytest.raises(InputError, match=r"^target ms 1e-06: no instance is within it; .* takes .* ms here at 32 px$"):
        predictor.choose(target_ms=1e-6)
    assert instance_of(predictor._network.model) == Instance(2, 0.75)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"cost": 0.249}, r"cost 0\.249: no instance is within it; 1@0\.5 costs 0\.250 of the full network"),
        ({"cost": 0}, "cost: must be above 0 and at most 1, the full network; found 0"),
        ({"cost": 1.01}, r"cost: must be above 0 and at most 1, the full network; found 1\.01"),
        ({"cost": float("nan")}, "cost: must be above 0 and at most 1"),
        ({"gflops": 0}, "gflops: must be above 0, found 0"),
        ({"gflops": float("nan")}, "gflops: must be above 0"),
        ({"target_ms": -1}, "target ms: must be above 0, found -1"),
        ({"gflops": 1, "image_size": 30}, "image size: must be a multiple of 4"),
        ({}, "budget: name one of cost, gflops and target_ms"),
        ({"cost": 1, "gflops": 1}, "budget: name one of cost, gflops and target_ms"),
    ],
)
def test_budgets_that_cannot_be(predictor: Detector, budget: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        predictor.choose(**budget)
    assert predictor.cost == 1


def without_instances(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, extras={})


def without_records(checkpoint: Checkpoint) -> Checkpoint:
    return with_instances(checkpoint, replace(instances_in(checkpoint), records=()))


def without_metric(checkpoint: Checkpoint) -> Checkpoint:
    records = tuple(replace(one, metrics={}) for one in RECORDS)
    return with_instances(checkpoint, replace(instances_in(checkpoint), records=records))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_instances, "the cost cannot be chosen: the checkpoint has no instances, because it was trained with"),
        (without_records, r"are measured: detect val --weights FILE --data DATA --instances$"),
        (without_metric, "the records of the instances are damaged; measure them again"),
    ],
)
@pytest.mark.parametrize("budget", [{"cost": 0.5}, {"gflops": 1}, {"target_ms": 10}])
def test_nothing_is_known(tmp_path: Path, change: Any, message: str, budget: dict[str, float]) -> None:
    """The full network may be asked for all the same."""
    predictor = Detector(change(detector(tmp_path)), device="cpu")
    with pytest.raises(InputError, match=message):
        predictor.choose(**budget)
    predictor.cost = 1.0
    assert predictor.cost == 1.0


def test_switching_is_quick(predictor: Detector) -> None:
    """The median of many switches, there and back, with everything that belongs to them."""
    seconds = []
    for _ in range(25):
        for cost in (0.6, 0.25, 1.0):
            start = time.perf_counter()
            predictor.cost = cost
            seconds.append(time.perf_counter() - start)
    assert median(seconds) < 0.010


def test_several_choices_are_timed(predictor: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MAX_ROUNDS", 1)
    predictor.cost = 0.25
    (full, full_ms), (less, less_ms) = predictor.network.choices([1.0, 0.6], (64, 32))
    assert (full.name, less.name) == ("plain", "1@0.75")
    assert full_ms > 0 < less_ms
    assert predictor.cost == 0.25


# ------------------------------------------------------------------------------------- what is found is right


@pytest.mark.parametrize(
    ("way", "cells_px"),
    [
        # Two pixels per cell, behind the point four: the shrunken level has them, the restored one has not.
        ("restore", 2),
        ("shrink", 4),
    ],
)
def test_boxes_are_in_the_pixels_of_the_image(tmp_path: Path, way: Way, cells_px: int) -> None:
    """A head that knows nothing gives each cell a box of its anchor's size in its middle: 4 x 4 px on the first level.

    The 64 px image is seen at 32 px, so that the boxes are 8 x 8 px and their centres 2 * cells_px apart. Half of the
    network input is 8 cells of the restored level and 4 of the shrunken one. The box in the corner ends outside.
    """
    checkpoint = detector(tmp_path, way=way)
    first, second = checkpoint.detector.head.predict
    for conv in (first, second):
        conv.weight.data.zero_()
        conv.bias.data.zero_()
    second.bias.data[4] = -20  # nothing on the second level
    predictor = Detector(checkpoint, device="cpu")
    predictor.cost = 0.25
    image = np.zeros((64, 64, 3), np.uint8)
    found = predictor.predict(image, conf=0.1, iou=1.0, max_det=1000)
    boxes = found.boxes_xyxy_px
    centres = np.unique(((boxes[:, 0] + boxes[:, 2]) / 2).round(3))
    expected = np.arange(32 // cells_px) * 2 * cells_px + cells_px
    # Boxes at the edges are cut off, so that their middle is not the cell's.
    inside = (expected >= 4) & (expected <= 60)
    assert np.isin(expected[inside], centres).all()
    whole = boxes[(boxes.min(axis=1) > 0) & (boxes.max(axis=1) < 64)]
    np.testing.assert_allclose(whole[:, 2:] - whole[:, :2], 8, atol=1e-3)
    assert len(found) == (32 // cells_px) ** 2
    assert found.image_hw == (64, 64)


def test_a_classifier(tmp_path: Path) -> None:
    """Each instance gives other probabilities; back at 1 they are the first ones again."""
    records = (record(0, 1.0, 100, 0.9, "top1"), record(1, 0.5, 40, 0.7, "top1"))
    predictor = Classifier(classifier(tmp_path, records), device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    first = predictor.predict(image).probabilities
    predictor.cost = 0.5
    assert predictor.cost == 0.4
    assert not np.allclose(predictor.predict(image).probabilities, first)
    predictor.cost = 1.0
    np.testing.assert_array_equal(predictor.predict(image).probabilities, first)
    assert predictor.choose(cost=0.4).line().endswith("; top1 0.700 (shapes val, 32 px)")


def test_the_size_of_the_input(tmp_path: Path) -> None:
    """A detector keeps the aspect: 100 x 50 px become 32 x 16 px, 100 x 30 become 32 x 10 and are padded to 32 x 12."""
    boxes, classes = Detector(detector(tmp_path), device="cpu"), Classifier(classifier(tmp_path), device="cpu")
    assert boxes.network_hw((100, 50)) == (32, 16)
    assert boxes.network_hw((30, 100)) == (12, 32)
    assert boxes.network_hw((100, 50), 64) == (64, 32)
    assert classes.network_hw((100, 50)) == (32, 32)
    assert torch.equal(torch.tensor(classes.network_hw((1, 1), 64)), torch.tensor((64, 64)))
