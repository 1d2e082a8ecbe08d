"""Every shipped recipe and experiment can start: model, loss, optimiser, schedule and augmentation fit one another."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from detect.config.loader import CONFIGS, load_data_config, load_detection_recipe, load_run_config
from detect.config.schema import DetectionRecipe
from detect.data.albumentations_stage import AlbumentationsStage
from detect.data.sampling import TrainingOrder
from detect.losses.detection import choose_assignment
from detect.models.build import build_model
from detect.models.catalog import find_definition
from detect.training.loop import _prepare_trainee
from detect.training.preparation import freeze


def shipped(kind: str) -> list:
    return [pytest.param(path, id=path.stem) for path in sorted((CONFIGS / kind).glob("*.yaml"))]


def assert_starts(model_name: str, recipe: DetectionRecipe, num_classes: int) -> None:
    """Everything that ``train`` makes before its first batch, for a training set of 1000 images."""
    model = build_model(model_name, num_classes)
    freeze(model, recipe.freeze)
    assert recipe.image_size % model.max_reduction == 0
    order = TrainingOrder(1000, recipe.batch_size, recipe.epochs, recipe.augment, recipe.seed)
    assert recipe.augment.mixup + recipe.augment.cutmix <= 1
    if recipe.augment.albumentations:
        AlbumentationsStage(recipe.augment.albumentations, recipe.image_size)
    known = dataclasses.replace(recipe, precision="fp32")  # "auto" would measure
    trainee = _prepare_trainee(model, known, len(order), torch.device("cpu"))
    updates = trainee.schedule.updates_per_epoch * recipe.epochs
    assert trainee.schedule.warmup_updates < updates
    rates = [trainee.schedule.rate(update, "weights") for update in range(updates)]
    assert all(0 < rate <= recipe.optimizer.lr for rate in rates[:-1])
    assert 0 <= rates[-1] < max(rates)
    assert set(recipe.evaluation.save_best)


@pytest.mark.parametrize("path", shipped("train"))
def test_recipe(path: Path) -> None:
    assert_starts("yolov5n-spd", load_detection_recipe(str(path), {}), num_classes=80)


def test_the_recipe_of_csp_detectors_starts_with_one() -> None:
    """YOLOv3's coding, for which it is meant."""
    name = "csppeleenet-efm+width=0.25"
    assert choose_assignment(load_detection_recipe("csp-coco", {}).loss, build_model(name, 1).head) == "yolov3"
    assert_starts(name, load_detection_recipe("csp-coco", {}), num_classes=80)


@pytest.mark.parametrize("path", shipped("runs"))
def test_run(path: Path) -> None:
    run = load_run_config(str(path))
    data = load_data_config(run.data)
    assert {"train", "val"} <= data.splits.keys()
    assert_starts(run.model, load_detection_recipe(run.recipe, run.set), num_classes=len(data.names or range(6)))


@pytest.mark.parametrize("path", shipped("runs"))
def test_run_is_found_by_its_name(path: Path) -> None:
    assert load_run_config(path.stem) == load_run_config(str(path))
    assert find_definition(load_run_config(path.stem).model).rows[-1].section == "head"
