"""Whole runs of a classifier: they learn, repeat themselves to the last bit, and go on where they were stopped."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from detect.config.base import build
from detect.config.data import DataConfig, SplitConfig
from detect.config.recipe import ClassificationRecipe
from detect.errors import InputError
from detect.models.checkpoint import load_checkpoint
from detect.training import loop
from detect.training.classification import open_classification_data
from detect.training.loop import train
from detect.training.settings import RunSettings
from detect.training.state import build_state
from tests.training.small import train_in_pieces
from tests.training.test_loop import assert_same_run, results

MODEL = """\
name: small
defaults: {downsample: spd}
backbone:
  - {name: stem, module: Stem, args: {out_channels: 8, activation: relu}, reduction: 2}
  - {name: stage1, module: ResidualStage, args: {out_channels: 8}}
  - {name: c5, module: ResidualStage, args: {out_channels: 16, halve: true, shortcut: projection}, reduction: 4}
head:
  - {name: classify, module: Classify}
"""
COLOURS = {"blue": (200, 60, 60), "green": (60, 200, 60), "red": (60, 60, 200)}
"""Class to the BGR around which its images lie."""


def make_classes(root: Path, per_class: int = 8, val: int = 4) -> DataConfig:
    """Folders of noisy 16 px images whose colour tells the class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", per_class), ("val", val)):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = rng.integers(-50, 51, (16, 16, 3))
                image = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / f"{number}.png"), image)
    return classes_at(root)


def classes_at(root: Path) -> DataConfig:
    """The data set that ``make_classes`` has made."""
    return DataConfig("colours", str(root), {s: SplitConfig(s) for s in ("train", "val")}, format="folders")


def make_settings(folder: Path, data: DataConfig, **changes: Any) -> RunSettings:
    """Four epochs of three batches of 8 images of 16 px; ``changes`` are the recipe's keys."""
    plain: dict[str, Any] = {
        "epochs": 4,
        "batch_size": 8,
        "nominal_batch_size": 0,
        "image_size": 16,
        "workers": 0,
        "cache": "ram",
        "precision": "fp32",
        "optimizer": {"name": "sgd", "lr": 0.1, "warmup_min_steps": 1, "warmup_epochs": 1},
        "ema": {"decay": 0.5, "ramp_steps": 2},
        "augment": {"crop": "pad", "padding": 2},
    }
    model = folder / "small.yaml"
    model.write_text(MODEL, encoding="utf-8")
    recipe = build(ClassificationRecipe, plain | changes, "here")
    return RunSettings(str(model), data, recipe, folder / "run")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_classes(tmp_path_factory.mktemp("data") / "colours")


def test_a_run_learns(data, tmp_path):
    settings = make_settings(tmp_path, data, epochs=4)
    best = train(settings)
    assert best["top1"] == 1.0
    assert set(best) == {"top1", "top5", "loss"}
    rows = results(settings.out)
    assert float(rows[-1]["loss/classes"]) < float(rows[0]["loss/classes"])
    assert float(rows[0]["train/top1"]) * 24 == pytest.approx(round(float(rows[0]["train/top1"]) * 24), abs=1e-3)
    assert float(rows[0]["train/top1"]) < float(rows[-1]["train/top1"]) <= 1  # shares of 24 images
    found = load_checkpoint(settings.out / "best.pt")
    assert found.names == ("blue", "green", "red")
    assert (found.image_size, found.center_crop, found.category_ids) == (16, 1.0, (0, 1, 2))
    assert found.provenance["train_images"] == 24
    # Two thirds of the images have (60 / 255) of red, one third (200 / 255); the noise averages out.
    assert found.classifier.mean.tolist() == pytest.approx([(2 * 60 + 200) / 3 / 255] * 3, abs=0.01)
    for name in ("train_batch.jpg", "val_predictions.jpg", "results.csv", "config.yaml", "last.pt"):
        assert (settings.out / name).is_file(), name


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run(data, tmp_path):
    first, second = (make_settings(tmp_path, data, workers=workers, epochs=1) for workers in (0, 2))
    second = dataclasses.replace(second, out=tmp_path / "again")
    train(first)
    train(second)
    assert results(first.out) == results(second.out)


def test_a_resumed_run_is_the_whole_run(data, tmp_path):
    """Stopped again and again and resumed: weights, averages, momenta and metrics to the last bit."""
    whole = make_settings(tmp_path, data, augment={"crop": "pad", "mixup": 0.5, "cutmix": 0.5}, epochs=2)
    train(whole)
    stopped = dataclasses.replace(whole, out=tmp_path / "stopped")
    assert train_in_pieces(stopped, times=3) > 1
    assert_same_run(stopped.out, whole.out)


def test_accumulated_batches_have_the_mean_of_their_images(data, tmp_path):
    """Two batches of 4 are an update of 8: the scale of each image's loss is 1 / 8; weight decay is as stated."""
    settings = make_settings(tmp_path, data, batch_size=4, nominal_batch_size=8)
    task = loop.open_task(settings)
    model = task.prepare_model(settings.model, None)
    state = build_state(task, model, task.loader(model, tmp_path), torch.device("cpu"))
    assert (state.accumulate, state.loss_scale) == (2, 1 / 8)
    decays = {group["name"]: group["weight_decay"] for group in state.optimizer.param_groups}
    assert decays == {"weights": settings.recipe.optimizer.weight_decay, "norms": 0.0, "biases": 0.0}


def test_fine_tuning(data, tmp_path, caplog):
    """From another run's weights: they and the normalisation are taken over."""
    first = make_settings(tmp_path, data, epochs=1)
    train(first)
    second = dataclasses.replace(
        make_settings(tmp_path, data, epochs=1, center_crop=0.8, optimizer={"lr": 0.0}),
        model=None,
        weights=first.out / "best.pt",
        out=tmp_path / "second",
    )
    caplog.set_level(logging.INFO, "detect")
    logging.getLogger("detect").propagate = True
    train(second)
    one, two = (load_checkpoint(run.out / "best.pt").classifier for run in (first, second))
    assert torch.equal(one.mean, two.mean)
    torch.testing.assert_close(one.head.linear.weight, two.head.linear.weight)
    assert "was made for center_crop 1, the recipe says 0.8" in caplog.text


def test_settings_without_effect(data, tmp_path, caplog):
    caplog.set_level(logging.INFO, "detect")
    logging.getLogger("detect").propagate = True
    settings = make_settings(tmp_path, data, augment={"crop": "none", "padding": 2})
    task = loop.open_task(settings)
    task.criterion(task.prepare_model(settings.model, None))
    assert "no effect: augment.padding (crop is none, not pad)" in caplog.messages


def test_an_image_size_that_the_model_cannot_take(data, tmp_path):
    with pytest.raises(InputError, match=r"^image_size: must be a multiple of 4 for small, found 18$"):
        train(make_settings(tmp_path, data, image_size=18))


def test_splits_that_do_not_fit(data):
    with pytest.raises(InputError, match=r"^data colours: has no split 'val'; training needs train and val$"):
        open_classification_data(dataclasses.replace(data, splits={"train": SplitConfig("train")}), strict=False)


def test_a_detectors_weights(data, tmp_path):
    from detect.models.build import build_model
    from detect.models.checkpoint import save_checkpoint

    facts = {"names": ("a",), "category_ids": (1,), "image_size": 32, "metrics": {}, "provenance": {}}
    save_checkpoint(tmp_path / "w.pt", build_model("yolov5n+width=0.1", 1), **facts)
    settings = dataclasses.replace(make_settings(tmp_path, data), weights=tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"is a detector; here a classifier is needed$"):
        train(settings)
