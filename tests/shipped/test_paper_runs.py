"""The papers' experiments make updates: narrow networks, two images a batch, the recipe's optimizer and strategies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from detect.config.recipe import load_classification_recipe, load_detection_recipe
from detect.config.run import load_run_config
from detect.models.build import build_classifier, build_model
from detect.models.catalog import find_definition
from detect.models.graph import Graph
from detect.papers.sdpoint.transform import find_points
from detect.structures import Batch, ClassTargets, Targets
from detect.training.classification import ClassificationData, ClassificationTask
from detect.training.detection import DetectionTask
from detect.training.detection_data import DetectionData
from detect.training.epoch import train_epoch
from detect.training.state import build_state
from tests.shipped.test_configs import PAPER_RUNS

FAST = ("bdsc-imagenet-resnet18", "sdpoint-cifar10-wrn-28-10", "trd-cub-resnet50", "coco-csppeleenet-efm")
"""One of each paper."""
SIDE = 64
SMALL = {"batch_size": 2, "nominal_batch_size": 2, "image_size": SIDE, "precision": "fp32", "workers": 0}
WARM = {"optimizer.warmup_epochs": 0, "optimizer.warmup_min_steps": 0}
"""Rates at which every float moves."""
NAMED = SimpleNamespace(names=("a", "b"))


class TwoBatches:
    """Random images with a class, or with a box, each."""

    def __init__(self, is_classifier: bool) -> None:
        images = torch.randint(0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.manual_seed(0))
        boxes = torch.tensor([[4.0, 4, 40, 40], [10, 10, 60, 30]])
        detection = Targets(torch.arange(2), torch.arange(2), boxes)
        targets = ClassTargets(torch.eye(2)) if is_classifier else detection
        self.batch = Batch(images, targets, torch.arange(2))

    def __len__(self) -> int:
        return 2

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        yield from (self.batch, self.batch)


@pytest.mark.parametrize(
    ("name", "model", "points"),
    [
        ("sdpoint-cifar10-wrn-28-10", None, 12),
        ("sdpoint-cifar10-wrn-28-10", "wrn-40-4", 18),
        ("sdpoint-cifar10-densenet-bc-40-60", None, 12),
        ("sdpoint-imagenet-preresnet101", None, 33),
        ("sdpoint-imagenet-preresnet101", "resnext101", 33),
    ],
)
def test_points_of_sdpoint(name: str, model: str | None, points: int) -> None:
    """N of the paper, sections 6.1 and 6.2."""
    run = load_run_config(name)
    chosen = load_classification_recipe(run.recipe, run.set).sdpoint.points
    with torch.device("meta"):
        found = len(find_points(Graph(find_definition(model or run.model), 10)))
    assert set(chosen) <= set(range(1, found + 1))
    assert (len(chosen) or found) == points


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in sorted(PAPER_RUNS)]
)
def test_two_updates(name: str) -> None:
    run = load_run_config(name)
    model_name = f"{run.model}+width=0.125+depth=0.2"
    is_classifier = find_definition(model_name).is_classifier
    load = load_classification_recipe if is_classifier else load_detection_recipe
    changes = {"trd.resolution": SIDE // 2} if name.startswith("trd-") else {}
    all_points = {"sdpoint.points": []} if name.startswith("sdpoint-") else {}  # the narrow network has fewer blocks
    resized = {"augment.resize_px": [SIDE, SIDE]} if name.startswith("bdsc-") else {}
    recipe = load(run.recipe, {**run.set, **SMALL, **WARM, **changes, **all_points, **resized})
    build = build_classifier if is_classifier else build_model
    model = build(model_name, 2, recipe.initialisation)
    if is_classifier:
        task = ClassificationTask(ClassificationData(NAMED, None), recipe, strict=False)
    else:
        task = DetectionTask(DetectionData(NAMED, None), recipe, strict=False)
    loader = TwoBatches(is_classifier)
    state = build_state(task, model, loader, torch.device("cpu"))
    before = {key: value.clone() for key, value in model.named_parameters()}
    values = train_epoch(state, loader)
    assert state.update == 2
    assert all(math.isfinite(value) for value in values.values())
    stayed = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
    assert not stayed
