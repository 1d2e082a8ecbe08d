"""Updates that see several instances, which learn from the plain network."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from detect.config.recipe import LossConfig
from detect.models.build import build_classifier, build_model
from detect.models.model import DetectionModel, Model
from detect.papers.sdpoint.strategy import DetectionDistillation, SDPoint
from detect.papers.sdpoint.transform import PLAIN, Instance, instance_of
from detect.structures import ClassTargets
from detect.training.loop import train
from tests.papers.sdpoint.test_strategy import Loader, strategy_of
from tests.training.small import make_settings, make_shapes, train_in_pieces
from tests.training.test_loop import assert_same_run, results


@pytest.fixture
def classifier() -> Model:
    torch.manual_seed(0)
    return build_classifier("resnet20+width=0.25", 2)


def sandwich(model: Model, **changes: int) -> SDPoint:
    return strategy_of(model, Loader(), points=[1, 4], schedule="sandwich", **changes)


@dataclasses.dataclass(frozen=True)
class Terms:
    """Of a batch whose images are all of this process."""

    total: torch.Tensor
    num_images: int = 1

    def values(self) -> dict[str, float]:
        return {}


# ------------------------------------------------------------------------------------------- the instances


def test_the_instances_of_a_batch(classifier: Model) -> None:
    """Plain network and cheapest instance in every batch, and of the three others each equally often."""
    cheapest, others = Instance(1, 0.5), {Instance(1, 0.75), Instance(4, 0.5), Instance(4, 0.75)}
    strategy = sandwich(classifier)
    plans = [strategy.plan(epoch, number) for epoch in range(3) for number in range(1, 101)]
    assert all(plan[:2] == [PLAIN, cheapest] and len(plan) == 3 for plan in plans)
    counts = Counter(plan[2] for plan in plans)
    assert set(counts) == others
    assert all(abs(count - 100) < 33 for count in counts.values())  # 4 deviations of sqrt(300 * 2 / 9)
    assert plans[150] == sandwich(classifier).plan(1, 51)
    assert sandwich(classifier, drawn=0).plan(0, 1) == [PLAIN, cheapest]
    assert set(sandwich(classifier, drawn=9).plan(0, 1)) == {PLAIN, cheapest, *others}


def test_each_instance_sees_the_whole_batch(classifier: Model) -> None:
    strategy = sandwich(classifier)
    images, targets = torch.rand(2, 3, 16, 16), ClassTargets(torch.zeros(2, 2))
    parts = strategy.on_batch(images, targets, 0, 1)
    assert all(found is images and same is targets for found, same in parts)
    active = []
    for number in range(len(parts)):
        strategy.on_part(number)
        active.append(instance_of(classifier))
    assert active == strategy.plan(0, 1)


# ---------------------------------------------------------------------------------------------- distillation


def test_a_classifier_learns_the_probabilities_of_the_plain_network(classifier: Model) -> None:
    """Equal logits against 1/4 and 3/4: ln 2, a third of it for each of three instances; the labels do not count."""
    strategy = sandwich(classifier)
    strategy.on_batch(torch.rand(1, 3, 16, 16), ClassTargets(torch.zeros(1, 2)), 0, 1)
    strategy.on_part(0)
    plain = strategy.on_loss(Terms(torch.tensor(6.0)), torch.tensor(6.0), torch.tensor([[0.0, math.log(3)]]))
    assert plain.item() == 2
    strategy.on_part(1)
    cheap = strategy.on_loss(Terms(torch.tensor(6.0)), torch.tensor(6.0), torch.zeros(1, 2))
    assert cheap.item() == pytest.approx(math.log(2) / 3)


def test_nothing_is_added_to_a_lone_instance(classifier: Model) -> None:
    strategy = strategy_of(classifier)
    strategy.on_batch(torch.rand(1, 3, 16, 16), ClassTargets(torch.zeros(1, 2)), 0, 1)
    strategy.on_part(0)
    loss = torch.tensor(6.0)
    assert strategy.on_loss(Terms(loss), loss, torch.zeros(1, 2)) is loss


def detection_distillation() -> DetectionDistillation:
    with torch.device("meta"):
        model = build_model("yolov5n+width=0.25", 2)
    assert isinstance(model, DetectionModel)
    return DetectionDistillation(LossConfig(), model.head, 640)


def levels(*sizes: int) -> list[torch.Tensor]:
    """Random raw predictions of one image, three anchors and two classes on square levels."""
    rng = torch.manual_seed(0)
    return [torch.randn(1, 3, size, size, 7, generator=rng) for size in sizes]


def test_a_detector_that_predicts_the_same_has_nothing_to_learn() -> None:
    raw = [level.requires_grad_() for level in levels(4, 2, 1)]
    detection_distillation()(raw, [level.detach() for level in raw]).backward()
    assert all(level.grad is not None and level.grad.abs().max() < 1e-6 for level in raw)


def test_the_terms_of_a_detector() -> None:
    """A level of one cell and anchor; its objectness 1/2 against 1/2, both classes 1/2 against 3/4, boxes 1 away.

    At 640 px and two classes the gains are 1 for objectness, weighted by 4, 0.5 * 2 / 80 for classes, 0.05 for boxes.
    """
    y, known = torch.zeros(1, 1, 1, 1, 7), torch.zeros(1, 1, 1, 1, 7)
    known[..., :4], known[..., 5:] = 1.0, math.log(3)
    found = detection_distillation()._level(y, known, 4.0)
    assert found.item() == pytest.approx(4 * math.log(2) + 0.0125 * math.log(2) + 0.05 * 0.5)


def test_a_level_of_fewer_cells_learns_the_largest_probability() -> None:
    """Of 2 x 2 cells one is sure; the cell in their place learns that, and no box."""
    known = torch.full((1, 3, 2, 2, 7), -20.0)
    known[0, 1, 1, 0, 4:] = 20.0
    y = torch.zeros(1, 3, 1, 1, 7, requires_grad=True)
    detection_distillation()._level(y, known, 1.0).backward()
    assert y.grad is not None
    assert (y.grad[0, :, 0, 0, 4] < 0).tolist() == [False, True, False]
    assert torch.equal(y.grad[..., :4], torch.zeros(1, 3, 1, 1, 4))


# ------------------------------------------------------------------------------------------------- whole runs


@pytest.mark.slow
def test_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    """Stopped and resumed, to the last bit; each image goes through two networks, and is counted once."""
    sdpoint = {"ratios": [0.5], "schedule": "sandwich", "norm_batches": 1}
    whole = make_settings(tmp_path, make_shapes(tmp_path / "data"), epochs=2, sdpoint=sdpoint)
    train(whole)
    stopped = dataclasses.replace(whole, out=tmp_path / "stopped")
    assert train_in_pieces(stopped, times=3) > 0
    assert_same_run(stopped.out, whole.out)
    for row in results(whole.out):
        assert 1 < float(row["compute/gmacs"]) / float(row["compute/full_gmacs"]) < 2
