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
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in sorted(PAPER_RUNS)]
)
def test_two_updates(name: str) -> None:
    run = load_run_config(name)
    model_name = f"{run.model}+width=0.125+depth=0.2"
    is_classifier = find_definition(model_name).is_classifier
    load = load_classification_recipe if is_classifier else load_detection_recipe
    changes = {"trd.resolution": SIDE // 2} if name.startswith("trd-") else {}
    resized = {"augment.resize_px": [SIDE, SIDE]} if name.startswith("bdsc-") else {}
    recipe = load(run.recipe, {**run.set, **SMALL, **WARM, **changes, **resized})
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
