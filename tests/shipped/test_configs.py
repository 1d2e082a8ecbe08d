"""Every shipped recipe and experiment can start: model, loss, optimiser, schedule and augmentation fit one another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from detect.config.data import load_data_config
from detect.config.recipe import (
    ClassificationRecipe,
    DetectionRecipe,
    load_classification_recipe,
    load_detection_recipe,
)
from detect.config.run import load_run_config
from detect.config.yaml_files import CONFIGS, find_config, load_yaml
from detect.data.detection.albumentations_stage import AlbumentationsStage
from detect.data.detection.sampling import TrainingOrder
from detect.losses.terms import choose_assignment
from detect.models.build import build_classifier, build_model
from detect.models.catalog import find_definition
from detect.models.model import Model
from detect.structures import Batch
from detect.training.classification import ClassificationData, ClassificationTask
from detect.training.detection import DetectionTask
from detect.training.detection_data import DetectionData
from detect.training.settings import DEFAULT_CLASSIFICATION, DEFAULT_DETECTION
from detect.training.state import build_state, freeze
from detect.training.task import Task

PAPER_RUNS = {
    path.stem
    for prefix in ("bdsc-", "coco-", "sdpoint-", "trd-")
    for path in (CONFIGS / "runs").glob(f"{prefix}*.yaml")
}
"""The papers' own experiments (``tests/shipped/test_paper_runs.py``)."""
LARGE = ("cifar10-resnet50", "cifar10-resnet50-spd")
WITH_A_TWIN = ("deeppcb-yolov5n", "tiny-imagenet-resnet18")
"""Runs of which another with a space-to-depth starts in the fast suite."""


def shipped(kind: str) -> list:
    return [
        pytest.param(path, id=path.stem, marks=pytest.mark.slow if _is_slow(path.stem) else ())
        for path in sorted((CONFIGS / kind).glob("*.yaml"))
    ]


def _is_slow(name: str) -> bool:
    """True for large models, and where a twin, or a narrow form (``test_paper_runs``), starts in the fast suite."""
    return name in (*LARGE, *WITH_A_TWIN) or name in PAPER_RUNS


def is_for_classifiers(recipe: Path) -> bool:
    return "crop" in load_yaml(recipe).get("augment", {})


def assert_detector_starts(model_name: str, recipe: DetectionRecipe, num_classes: int) -> None:
    """Everything that ``train`` makes before its first batch, for a training set of 1000 images."""
    model = build_model(model_name, num_classes)
    order = TrainingOrder(1000, recipe.batch_size, recipe.epochs, recipe.augment, recipe.seed)
    assert recipe.augment.mixup + recipe.augment.cutmix <= 1
    if recipe.augment.albumentations:
        AlbumentationsStage(recipe.augment.albumentations, recipe.image_size)
    known = dataclasses.replace(recipe, precision="fp32")  # "auto" would measure
    assert_starts(DetectionTask(DetectionData(NAMED, None), known, strict=False), model, len(order))


def assert_classifier_starts(model_name: str, recipe: ClassificationRecipe, num_classes: int) -> None:
    """The same for a classifier."""
    model = build_classifier(model_name, num_classes)
    known = dataclasses.replace(recipe, precision="fp32")
    assert_starts(ClassificationTask(ClassificationData(NAMED, None), known, strict=False), model, 50_000 // 128)


NAMED = SimpleNamespace(names=("a", "b"))
"""A training set, of which a task reads the class names alone before the first batch."""


class Batches:
    """A loader that is only counted."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        raise NotImplementedError


def assert_starts(task: Task, model: Model, num_batches: int) -> None:
    recipe = task.recipe
    freeze(model, recipe.freeze)
    assert recipe.image_size % model.max_reduction == 0
    state = build_state(task, model, Batches(num_batches), torch.device("cpu"))
    updates = state.schedule.updates_per_epoch * recipe.epochs
    assert state.schedule.warmup_updates < updates
    some = (*range(0, updates - 1, max(1, updates // 1000)), updates - 1)
    rates = [state.schedule.rate(update, "weights") for update in some]
    assert all(0 < rate <= recipe.optimizer.lr for rate in rates[:-1])
    assert 0 <= rates[-1] < max(rates)
    assert set(recipe.evaluation.save_best)


@pytest.mark.parametrize("path", shipped("train"))
def test_recipe(path: Path) -> None:
    if is_for_classifiers(path):
        recipe = load_classification_recipe(str(path), {})
        model = "wrn-10-1" if recipe.sdpoint.sizes else "resnet18-spd+width=0.25"  # sizes are multiples of 4 px
        assert_classifier_starts(model, recipe, num_classes=10)
    else:
        assert_detector_starts("yolov5n-spd+width=0.25", load_detection_recipe(str(path), {}), num_classes=80)


def test_the_recipe_of_csp_detectors_starts_with_one() -> None:
    """YOLOv3's coding, for which it is meant."""
    name = "csppeleenet-efm+width=0.25"
    assert choose_assignment(load_detection_recipe("csp-coco", {}).loss, build_model(name, 1).head) == "yolov3"
    assert_detector_starts(name, load_detection_recipe("csp-coco", {}), num_classes=80)


@pytest.mark.parametrize("path", shipped("runs"))
def test_run(path: Path) -> None:
    run = load_run_config(str(path))
    data = load_data_config(run.data)
    assert {"train", "val"} <= data.splits.keys()
    if find_definition(run.model).is_classifier:
        recipe = load_classification_recipe(run.recipe or DEFAULT_CLASSIFICATION, run.set)
        assert is_for_classifiers(find_config("train", run.recipe or DEFAULT_CLASSIFICATION))
        assert data.format in ("folders", "cifar", "tiny-imagenet", "cub", "stanford-dogs")
        assert_classifier_starts(run.model, recipe, num_classes=10)
    else:
        recipe = load_detection_recipe(run.recipe or DEFAULT_DETECTION, run.set)
        assert_detector_starts(run.model, recipe, num_classes=len(data.names or range(6)))


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIGS / "runs").glob("*.yaml")))
def test_files_of_a_run(name: str) -> None:
    run = load_run_config(name)
    assert run == load_run_config(str(CONFIGS / "runs" / f"{name}.yaml"))
    assert load_data_config(run.data).name
    definition = find_definition(run.model)
    assert definition.rows[-1].section == "head"
    if definition.is_classifier:
        load_classification_recipe(run.recipe or DEFAULT_CLASSIFICATION, run.set)
    else:
        load_detection_recipe(run.recipe or DEFAULT_DETECTION, run.set)
