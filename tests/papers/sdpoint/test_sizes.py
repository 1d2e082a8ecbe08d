"""Instances on smaller images: training, statistics, measurement and use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from detect import Detector
from detect.api.evaluation_request import choose_instance
from detect.config.base import build
from detect.config.recipe import ClassificationRecipe, DetectionRecipe
from detect.errors import InputError
from detect.models.build import build_classifier, build_graph, build_model
from detect.models.model import Model
from detect.papers.sdpoint.comparison import ClassificationSplit, compare_instances
from detect.papers.sdpoint.instances import Instances, install, instances_in, read_instances, with_instances
from detect.papers.sdpoint.network import choose_cost
from detect.papers.sdpoint.strategy import SDPoint
from detect.papers.sdpoint.transform import PLAIN, Instance, InstanceCosts, InstanceTransform, list_instances
from detect.structures import Targets
from detect.training.norm_statistics import learning_norms, norm_statistics
from tests.models.yamls import TINY, read_model, write_model
from tests.papers.sdpoint.samples import RECORDS, classifier, detector, record
from tests.papers.sdpoint.test_comparison import classes, conditions
from tests.papers.sdpoint.test_strategy import CPU, Loader, batches
from tests.training.small import make_recipe

SMALL = Instance(0, 1.0, 0.5)
"""The plain network on images of half the size."""


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return build_model("yolov5n+width=0.25", 2)


def recipe(**changes: object) -> DetectionRecipe:
    return make_recipe(image_size=128, sdpoint={"sizes": [64], **changes})


def strategy_of(model: Model, **changes: object) -> SDPoint:
    return SDPoint(recipe(**changes), model, Loader(), CPU, "fp32")


def test_names_and_sizes() -> None:
    assert [SMALL.name, Instance(3, 0.5, 0.75).name] == ["plain*0.5", "3@0.5*0.75"]
    assert Instance(1, 0.5, 0.75).network_hw((128, 96), 32) == (96, 64)  # 72 px are nearest to 2 * 32, half to even
    assert PLAIN.network_hw((100, 50), 32) == (100, 50)
    assert list_instances((1,), (0.5,), (1.0, 0.5)) == [PLAIN, Instance(1, 0.5), SMALL, Instance(1, 0.5, 0.5)]


def test_a_smaller_image_costs_its_area(tmp_path: Path) -> None:
    """All layers are convolutions."""
    costs = InstanceCosts(build_graph(read_model(write_model(tmp_path, TINY)), 2), 2)
    assert 4 * costs.macs(SMALL, (32, 32)) == costs.macs(PLAIN, (32, 32))
    assert 4 * costs.macs(Instance(1, 0.5, 0.5), (32, 32)) == costs.macs(Instance(1, 0.5), (32, 32))


def test_sizes_are_instances_with_and_without_points(model: Model) -> None:
    assert strategy_of(model).instances == [PLAIN, SMALL]
    both = strategy_of(model, ratios=[0.5], points=[2]).instances
    assert both == [PLAIN, Instance(2, 0.5), SMALL, Instance(2, 0.5, 0.5)]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (40, "sdpoint.sizes: 40 is not a multiple of 32; the nearest are 32 and 64"),
        (160, "sdpoint.sizes: 160 is above image_size 128; it makes images smaller"),
        (128, "sdpoint.sizes: none is below image_size 128 in multiples of 32; choose smaller ones"),
        (0.9, "sdpoint.sizes: none is below image_size 128 in multiples of 32; choose smaller ones"),
    ],
)
def test_sizes_that_cannot_be(model: Model, size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        strategy_of(model, sizes=[size])


def test_a_classifier_without_a_smaller_size_is_refused() -> None:
    """It crashed in the first batch that was not to go through the plain network."""
    plain = build_classifier("resnet20", 2)
    config = build(
        ClassificationRecipe, {"image_size": 32, "sdpoint": {"sizes": [32, 0.95], "plain_share": 0.5}}, "here"
    )
    with pytest.raises(InputError, match="sdpoint.sizes: none is below image_size 32 in multiples of 4"):
        SDPoint(config, plain, Loader(), CPU, "fp32")


def test_sizes_as_shares_are_multiples(model: Model) -> None:
    """0.8 and 0.7 of 128 px are nearest to 96 px, which is one instance."""
    assert strategy_of(model, sizes=[0.8, 0.7, 0.5]).instances == [PLAIN, Instance(0, 1.0, 0.75), SMALL]


def test_boxes_follow_the_images(model: Model) -> None:
    """In one update the images come at the full size, and at half of it as means of four pixels."""
    strategy = strategy_of(model, schedule="sandwich")
    images = torch.rand(1, 3, 128, 64)
    targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[8.0, 4.0, 40.0, 20.0]]))
    (whole, same), (small, moved) = strategy.on_batch(images, targets, 0, 1)
    assert whole is images
    assert same is targets
    torch.testing.assert_close(small, F.avg_pool2d(images, 2))
    assert moved.boxes_xyxy_px.tolist() == [[4.0, 2.0, 20.0, 10.0]]


def test_statistics_are_those_of_smaller_images(model: Model) -> None:
    """Against a model that is given means of four pixels; ``batches`` are of 16 px, which stay one reduction of 32."""
    strategy = strategy_of(build_model("yolov5n+width=0.25", 2))
    transform = InstanceTransform(SMALL, "restore")
    large = [replace(batch, images=batch.images.repeat(1, 8, 8, 1)) for batch in batches(2)]
    strategy.norms = replace(strategy.norms, loader=GivenBatches(large))
    found = strategy.norms.measure(model, [transform], 0)[transform]

    def halved(network: Model, batch: object) -> None:
        network(F.avg_pool2d(batch.images.permute(0, 3, 1, 2).float() / 255, 2))  # type: ignore[attr-defined]

    expected = norm_statistics(model, learning_norms(model), [transform], large, halved)[transform]
    for path, values in found.items():
        torch.testing.assert_close(values, expected[path])


class GivenBatches(Loader):
    def __init__(self, given: list) -> None:
        self.given = given

    def epoch(self, number: int, start: int = 0):
        return iter(self.given)


def test_measured_at_its_size(tmp_path: Path) -> None:
    """Without statistics of its own it is the baseline: the plain network at 16 px for 32 px."""
    checkpoint, split = classifier(tmp_path), ClassificationSplit(classes(tmp_path))
    instances = Instances((PLAIN, SMALL), "restore")
    install(checkpoint.model, instances)
    found = compare_instances(("sd.pt", with_instances(checkpoint, instances)), split, conditions(), None, {})
    small = next(size for size in found.baselines[0].sizes if size.image_size == 16)
    assert found.records[1].instance == SMALL
    assert (found.records[1].macs, found.records[1].metrics) == (small.macs, small.metrics)


def test_the_chosen_size_is_used(tmp_path: Path) -> None:
    small = replace(record(0, 1.0, 300, 0.51), instance=SMALL)
    checkpoint = detector(tmp_path, (RECORDS[0], small))
    predictor = Detector(checkpoint, device="cpu")
    predictor.cost = 0.3
    assert predictor.image_size == 16
    assert predictor.network_hw((64, 32)) == (16, 8)
    predictor.cost = 1
    assert predictor.image_size == 32
    chosen, line = choose_cost(checkpoint, 0.3)
    assert chosen.image_size == 16
    assert line.startswith("instance plain*0.5: costs 0.300 of the full network")


def test_another_image_size_is_the_full_networks(tmp_path: Path) -> None:
    """At 64 px for the trained 32, an instance at half the size sees 32 px: in prediction, evaluation and budget."""
    small = replace(record(0, 1.0, 300, 0.51), instance=SMALL)
    checkpoint = detector(tmp_path, (RECORDS[0], small))
    predictor = Detector(checkpoint, device="cpu")
    full = 2e-9 * InstanceCosts(checkpoint.model.graph, 2).macs(PLAIN, (64, 64))
    assert predictor.choose(gflops=full / 4, image_size=64).name == "plain*0.5"
    assert predictor.network_hw((64, 32), image_size=64) == (32, 16)
    assert predictor.network.multiply_adds((32, 32)) == full / 4 / 2e-9
    predictor.cost = 1
    assert predictor.network_hw((64, 32), image_size=64) == (64, 32)
    assert choose_instance(checkpoint, 0.3, 64)[0].image_size == 32
    with pytest.raises(InputError, match="image size: must be a multiple of 4"):
        choose_instance(checkpoint, 0.3, 30)


def test_files_with_and_without_scales(tmp_path: Path) -> None:
    checkpoint = detector(tmp_path)
    before = instances_in(checkpoint)
    assert before is not None
    scaled = replace(before, members=(PLAIN, SMALL), statistics={}, records=()).to_plain(checkpoint.model)
    assert read_instances(scaled, checkpoint.model.graph).members == (PLAIN, SMALL)
    old = scaled | {"members": [[0, 1.0], [1, 0.5]]}
    assert read_instances(old, checkpoint.model.graph).members == (PLAIN, Instance(1, 0.5))
    with pytest.raises(InputError, match=r"found 1@0\.5 at scale 2"):
        read_instances(scaled | {"members": [[0, 1.0], [1, 0.5, 2.0]]}, checkpoint.model.graph)
