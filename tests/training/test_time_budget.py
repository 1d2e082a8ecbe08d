"""Epochs for a number of minutes."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

import pytest
import yaml

from detect.errors import InputError
from detect.models.model import Model
from detect.papers.trd.schedule import reduced_epochs
from detect.training.loop import open_task, train
from detect.training.settings import RunRequest, open_run
from detect.training.state import build_state
from detect.training.strategy import Strategy
from detect.training.time_budget import Timing, fit_epochs, timed_recipe, validation_seconds, with_epochs
from tests.training.small import make_recipe, make_settings, make_shapes


@pytest.mark.parametrize(
    ("minutes", "timing", "expected"),
    [
        # 10 minutes less 5 % are 570 s, less 70 s of preparation 500 s. Epochs of 9 s with a validation of 1 s.
        (10, Timing(50, 20, 9, 1), (50, 1)),
        (10, Timing(50, 30, 9, 1), (49, 1)),
        # A validation of 9 s after each epoch would be half: a fifth is one after four epochs. 45 s each: eleven are
        # 495 s, and 5 s are left, too few for another epoch and its validation.
        (10, Timing(50, 20, 9, 9), (44, 4)),
        # 24 s are left: two epochs and their validation, 27 s, do not fit, one of 18 s does.
        (10, Timing(30, 21, 9, 9), (45, 4)),
        # Less than one round: 57 - 20 = 37 s are three epochs of 9 s and a validation of 10, at the end only.
        (1, Timing(10, 10, 9, 10), (3, 3)),
        (1, Timing(10, 10, 27, 10), (1, 1)),
    ],
)
def test_what_fits(minutes: float, timing: Timing, expected: tuple[int, int]) -> None:
    epochs, every = fit_epochs(timing, minutes)
    assert (epochs, every) == expected
    validations = -(-epochs // every)
    needed = timing.spent + timing.setup + epochs * timing.epoch + validations * timing.validation
    assert needed <= 57 * minutes < needed + timing.epoch + timing.validation


def test_too_little_time() -> None:
    """30 + 50 + 20 s with a reserve of 5 % are 105.3 s: 1.8 minutes."""
    message = (
        "--minutes 1: too little for one epoch, which takes 50 s here, beside 20 s of validation and 30 s of "
        "preparation; at least --minutes 1.8, or fewer images (train_images), or a smaller --image-size"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        fit_epochs(Timing(20, 10, 50, 20), 1)
    assert fit_epochs(Timing(20, 10, 50, 20), 1.8) == (1, 1)


def test_the_recipe_of_the_choice() -> None:
    recipe = with_epochs(make_recipe(min_updates=1000), 12, 3)
    assert (recipe.epochs, recipe.min_updates, recipe.evaluation.every) == (12, 0, 3)
    assert recipe.augment.close_mosaic == 2  # of 10: a fifth of 12 epochs
    assert with_epochs(make_recipe(), 100, 1).augment.close_mosaic == 10


@pytest.mark.parametrize("variant", ["random", "progressive", "regular", "mixed", "three", "batch"])
def test_the_timed_epoch_is_at_the_full_size(variant: str) -> None:
    """Otherwise a run with TRD would take twice the time; later epochs are reduced, so that norms are measured anew."""
    recipe = make_recipe(trd={"resolution": 0.5, "probability": 1.0, "variant": variant})
    first, *others = reduced_epochs(timed_recipe(recipe))
    assert not first
    assert any(others)
    assert timed_recipe(make_recipe()).trd == make_recipe().trd


def test_a_timed_validation_has_the_strategies_part(tmp_path: Path) -> None:
    class Slow(Strategy):
        def eval_model(self, model: Model, epoch: int) -> Model:
            time.sleep(0.5)
            return model

    settings = make_settings(tmp_path, make_shapes(tmp_path / "shapes"))
    task = open_task(settings)
    model = task.prepare_model(settings.model, None)
    state = build_state(task, model, task.loader(model, tmp_path), settings.device)
    state.strategies = (Slow(),)
    assert validation_seconds(task, state) > 0.5


def test_requests_that_contradict_each_other(tmp_path) -> None:
    for keys in ({"keys": {"epochs": 3}}, {"overrides": {"epochs": 3}}):
        with pytest.raises(InputError, match=r"--minutes: chooses the epochs; give one of the two"):
            open_run(RunRequest(model="yolov5n", data="shapes", minutes=1, **keys))
    for minutes in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"--minutes: must be above 0, found"):
            open_run(RunRequest(model="yolov5n", data="shapes", minutes=minutes))


@pytest.mark.slow
def test_a_run_of_some_seconds(tmp_path, caplog) -> None:
    """It is the run of the epochs that it chose, to the last bit, and can be resumed but not to another time."""
    caplog.set_level("INFO", logger="detect")
    data = make_shapes(tmp_path / "shapes")
    settings = dataclasses.replace(make_settings(tmp_path, data, nominal_batch_size=8), minutes=0.8)
    start = time.monotonic()
    metrics = train(settings)
    assert time.monotonic() - start < 2 * 48  # beside other work
    recipe = yaml.safe_load((settings.out / "config.yaml").read_text())["recipe"]
    epochs = recipe["epochs"]
    assert f"minutes 0.8: {epochs} epochs of " in caplog.text
    assert recipe["min_updates"] == 0
    keys = {"epochs": epochs, "nominal_batch_size": 8, "evaluation": {"every": recipe["evaluation"]["every"]}}
    keys["augment"] = {"close_mosaic": recipe["augment"]["close_mosaic"]}
    plain = dataclasses.replace(make_settings(tmp_path, data, **keys), out=tmp_path / "plain")
    assert train(plain) == metrics
    with pytest.raises(InputError, match=r"so it cannot change --minutes"):
        open_run(RunRequest(out=str(settings.out), resume=True, minutes=1.0))
    assert open_run(RunRequest(out=str(settings.out), resume=True)).recipe.epochs == epochs
