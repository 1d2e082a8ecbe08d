"""The Pareto front, the baseline and the comparison of instances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detect.data.annotations import encode_paths
from detect.data.classification.table import ClassTable
from detect.data.images import write_image
from detect.errors import InputError
from detect.evaluation.loop import Conditions
from detect.inference import timing
from detect.models.build import build_graph
from detect.models.checkpoint import Checkpoint
from detect.papers.sdpoint.comparison import (
    Baseline,
    ClassificationSplit,
    DetectionSplit,
    baseline_sizes,
    compare_instances,
    run_name,
)
from detect.papers.sdpoint.instances import instances_of, pareto_front
from detect.papers.sdpoint.transform import PLAIN, InstanceCosts, instance_of
from tests.evaluation.synthetic import make_table
from tests.models.yamls import TINY, read_model, write_model
from tests.papers.sdpoint.samples import RECORDS, classifier, comparison, detector, record, size

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed here is timed once."""
    monkeypatch.setattr(timing, "MAX_ROUNDS", 1)


def conditions(image_size: int = 32) -> Conditions:
    return Conditions(image_size, batch_size=2, workers=0, device=CPU)


def classes(folder: Path) -> ClassTable:
    """Six images of noise in three classes."""
    paths = [folder / f"{number}.png" for number in range(6)]
    rng = np.random.default_rng(0)
    for path in paths:
        write_image(path, rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    return ClassTable(encode_paths(paths), np.arange(6) % 3, ("a", "b", "c"))


# ------------------------------------------------------------------------------------------------ the front


def test_the_front_of_nothing_and_of_one() -> None:
    assert pareto_front([], "AP") == []
    assert pareto_front(RECORDS[:1], "AP") == [RECORDS[0]]


def test_the_front() -> None:
    """650 for 0.40 loses to 600 for 0.45; the plain network, 1000 for 0.50, to 900 for 0.52."""
    assert [found.instance.name for found in pareto_front(RECORDS, "AP")] == ["1@0.5", "1@0.75", "2@0.75"]


def test_equal_ones() -> None:
    """Of equal cost the better one counts, of equal metric the cheaper one, of equal both the first."""
    plain = record(0, 1.0, 100, 0.5)
    assert pareto_front([plain, record(1, 0.5, 100, 0.4)], "AP") == [plain]
    assert pareto_front([plain, record(1, 0.5, 90, 0.5)], "AP") == [record(1, 0.5, 90, 0.5)]
    assert pareto_front([plain, record(1, 0.5, 100, 0.5)], "AP") == [plain]


# --------------------------------------------------------------------------------------------- the baseline


@pytest.mark.parametrize(
    ("macs", "expected"),
    [
        (200, 0.1),
        (250, 0.125),  # an eighth of the way from 200 to 600, from 0.1 to 0.3
        (600, 0.3),
        (900, 0.45),  # three quarters of the way from 600 to 1000, from 0.3 to 0.5
        (1000, 0.5),
        (199, None),
        (1001, None),
    ],
)
def test_the_baseline_at_equal_cost(macs: int, expected: float | None) -> None:
    baseline = Baseline("a.pt", "tiny", (size(16, 200, 0.1), size(24, 600, 0.3), size(32, 1000, 0.5)))
    assert baseline.at(macs, "AP") == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("image_size", "cheapest", "expected"),
    [
        (32, 16**2, [16, 20, 24, 28, 32]),
        (32, 16**2 - 1, [12, 16, 20, 24, 28, 32]),
        (32, 1, [4, 8, 12, 16, 20, 24, 28, 32]),  # even the smallest costs more
        (32, 32**2, [32]),
        # 16 sizes. Evenly spread from 4 ** 2 to 64 ** 2: 16, 599, 1182, 1765, 2347, 2930, 3513 and 4096, whose roots
        # are 4, 24.5, 34.4, 42.0, 48.4, 54.1, 59.3 and 64. Of two multiples of 4 the one whose square is nearer.
        (64, 1, [4, 24, 36, 40, 48, 56, 60, 64]),
    ],
)
def test_image_sizes_of_the_baseline(tmp_path: Path, image_size: int, cheapest: int, expected: list[int]) -> None:
    """All layers of the network are convolutions, so its cost is a multiple of the area, and so is ``cheapest``."""
    costs = InstanceCosts(build_graph(read_model(write_model(tmp_path, TINY)), 2), 2)
    unit = costs.macs(PLAIN, (4, 4)) / 16
    assert baseline_sizes(costs, 4, image_size, int(cheapest * unit)) == expected


# ------------------------------------------------------------------------------------------- the comparison


def test_a_comparison_of_a_classifier(tmp_path: Path) -> None:
    checkpoint, split = classifier(tmp_path), ClassificationSplit(classes(tmp_path))
    found = compare_instances(("sd.pt", checkpoint), split, conditions(), None, {"split": "val"})
    assert found.metric == "top1"
    assert found.measured == {"split": "val"}
    assert [one.instance.name for one in found.records] == ["plain", "1@0.5", "1@0.75", "2@0.5", "2@0.75"]
    assert all(one.ms > 0 and set(one.metrics) == {"top1", "top5", "loss"} for one in found.records)
    costs = InstanceCosts(checkpoint.model.graph, 3)
    assert [one.macs for one in found.records] == [costs.macs(one.instance, (32, 32)) for one in found.records]
    (own,) = found.baselines
    assert own.source == "sd.pt"
    assert own.sizes[0].macs <= min(one.macs for one in found.records) < own.sizes[1].macs
    # At the full size the baseline is the plain network itself, which is measured once.
    assert own.sizes[-1].image_size == 32
    assert (own.sizes[-1].macs, own.sizes[-1].metrics) == (found.full_macs, found.records[0].metrics)
    assert instance_of(checkpoint.model) == PLAIN


@pytest.mark.slow
def test_a_comparison_with_another_network(tmp_path: Path) -> None:
    split = ClassificationSplit(classes(tmp_path))
    other = classifier(tmp_path)
    other.classifier.head.linear.bias.data += torch.tensor([100.0, 0.0, 0.0])  # it says "a", which two of six are
    found = compare_instances(("sd.pt", classifier(tmp_path)), split, conditions(), ("plain.pt", other), {})
    own, baseline = found.baselines
    assert baseline.source == "plain.pt"
    assert [one.macs for one in baseline.sizes] == [one.macs for one in own.sizes]
    assert {one.metrics["top1"] for one in baseline.sizes} == {2 / 6}


def test_a_network_without_instances(tmp_path: Path) -> None:
    plain = detector(tmp_path)
    without = Checkpoint(plain.model, plain.names, (0, 1), 32, {}, {}, None)
    with pytest.raises(InputError, match=r"^a\.pt: the checkpoint has no instances, .* --set 'sdpoint\.ratios=\[0"):
        instances_of(without, "a.pt")


@pytest.mark.parametrize("second", [False, True], ids=["weights", "baseline"])
def test_what_does_not_fit_is_refused_before_the_work(tmp_path: Path, second: bool) -> None:
    """The images of the table are not there, so that it would show if they were looked for."""
    split = DetectionSplit(make_table([[(0, 1, 1, 9, 9)]], names=("a", "b")))
    good, bad = ("good.pt", detector(tmp_path)), ("bad.pt", classifier(tmp_path))
    with pytest.raises(InputError, match="is a classifier; here a detector is needed"):
        compare_instances(*((good, split, conditions(), bad) if second else (bad, split, conditions(), None)), {})
    with pytest.raises(InputError, match="image size: must be a multiple of 4, found 30"):
        compare_instances(good, split, conditions(30), None, {})
    other = DetectionSplit(make_table([[(0, 1, 1, 9, 9)]], names=("y", "z")))
    with pytest.raises(InputError, match="classes: the checkpoint and the data have none in common"):
        compare_instances(good, other, conditions(), None, {})


def test_what_a_comparison_knows() -> None:
    found = comparison()
    assert found.full_macs == 1000
    assert found.front == pareto_front(RECORDS, "AP")


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        ("/home/me/runs/boards/best.pt", "boards"),
        ("runs/boards/best_AP50.pt", "boards"),
        ("runs/boards/last.pt", "boards"),
        ("/weights/yolov5n-spd-bccd.pt", "yolov5n-spd-bccd"),
        ("yolov5n-spd-bccd", "yolov5n-spd-bccd"),
    ],
)
def test_pictures_name_model_and_run_and_no_path(weights: str, name: str) -> None:
    assert run_name(Path(weights)) == name
    assert Baseline(weights, "yolov5n", ()).title == f"yolov5n ({name})"
