"""Which epochs are reduced, and to what."""

from __future__ import annotations

from typing import Any

import pytest

from detect.config.base import build
from detect.config.recipe import ClassificationRecipe, Recipe
from detect.errors import InputError
from detect.papers.trd.schedule import change_points, guarded_epochs, reduced_epochs, reduced_sizes
from detect.training.optimizer import Schedule
from tests.training.small import make_recipe

STEPS = {"schedule": "step", "milestones": [0.5, 0.75]}


def recipe(optimizer: dict[str, Any] | None = None, epochs: int = 20, image_size: int = 32, **trd: Any) -> Recipe:
    """A classifier's in the paper's form, whose images come to half their size; ``trd`` are the section's keys."""
    section = {"resolution": 16, "variant": "paper", **trd}
    plain = {"epochs": epochs, "image_size": image_size, "optimizer": optimizer or {}, "trd": section}
    seed = plain["trd"].pop("seed", 0)
    return build(ClassificationRecipe, plain | {"seed": seed}, "here")


# ---------------------------------------------------------------------------------------------- epochs


@pytest.mark.parametrize("probability", [0.0, 1.0])
@pytest.mark.parametrize("exact", [False, True])
def test_none_and_all(probability, exact):
    assert reduced_epochs(recipe(probability=probability, exact=exact)) == (probability == 1,) * 20


@pytest.mark.parametrize("probability", [0.3, 0.5, 0.9])
def test_the_share_is_the_probability(probability):
    """Of 10,000 draws within three standard deviations, each sqrt(10,000 * P * (1 - P))."""
    found = sum(reduced_epochs(recipe(epochs=10_000, probability=probability)))
    assert abs(found - 10_000 * probability) < 3 * (10_000 * probability * (1 - probability)) ** 0.5


def test_a_larger_probability_adds_epochs():
    few, more = (reduced_epochs(recipe(epochs=100, probability=p)) for p in (0.3, 0.6))
    assert all(later or not earlier for earlier, later in zip(few, more, strict=True))
    assert reduced_epochs(recipe(epochs=100, probability=0.3)) == few
    assert reduced_epochs(recipe(epochs=100, probability=0.3, seed=1)) != few


def test_epochs_around_a_step_are_never_reduced():
    """Steps after 10 and 15 of 20 epochs: m - 2 to m + 1 are 8 to 11 and 13 to 16, counted from 0."""
    guarded = {8, 9, 10, 11, 13, 14, 15, 16}
    schedules = [reduced_epochs(recipe(STEPS, seed=seed)) for seed in range(200)]
    assert {epoch for found in schedules for epoch, is_reduced in enumerate(found) if is_reduced} == (
        set(range(20)) - guarded
    )
    for exact in (False, True):
        found = reduced_epochs(recipe(STEPS, probability=1.0, exact=exact))
        assert {epoch for epoch, is_reduced in enumerate(found) if not is_reduced} == guarded
    assert all(reduced_epochs(recipe(STEPS, probability=1.0, guard=0)))


def test_points_are_where_the_rate_steps():
    """Each lies in the epoch whose last update has another rate than the last one before."""
    for milestones in ([0.5, 0.75], [0.55], [0.3, 0.7], [0.123]):
        asked = recipe({"schedule": "step", "milestones": milestones}, epochs=100)
        schedule = Schedule(asked.optimizer, 7, 100)
        steps = [e for e in range(1, 100) if schedule.decay(7 * e + 6) != schedule.decay(7 * e - 1)]
        assert [int(point) for point in change_points(asked)] == steps


@pytest.mark.parametrize(
    ("points", "guard", "expected"),
    [
        ([], 2, []),
        ([5.0], 0, []),
        ([5.0], 1, [4, 5]),
        ([5.0], 2, [3, 4, 5, 6]),
        # A step in the middle of an epoch: that one, and those that lie in part within 2 epochs of it.
        ([5.5], 2, [3, 4, 5, 6, 7]),
        ([1.0, 9.0], 2, [0, 1, 2, 7, 8, 9]),
    ],
)
def test_guards(points, guard, expected):
    assert sorted(guarded_epochs(points, guard, 10)) == expected


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [({"schedule": "cosine"}, []), ({"schedule": "step", "milestones": [0.0, 1.0]}, []), (STEPS, [10.0, 15.0])],
)
def test_what_needs_no_guard_in_the_paper(optimizer, expected):
    """Rates that change bit by bit, and steps before the first or after the last update."""
    assert change_points(recipe(optimizer)) == expected


@pytest.mark.parametrize("schedule", ["cosine", "linear", "poly", "constant", "step"])
def test_the_last_epochs_are_full(schedule):
    """Without steps the end of 20 epochs is the only point; two epochs before it are guarded."""
    asked = recipe({"schedule": schedule, "milestones": []}, variant="random", probability=1.0)
    assert change_points(asked) == [20.0]
    assert reduced_epochs(asked) == (True,) * 18 + (False,) * 2


@pytest.mark.parametrize(
    ("augment", "expected"),
    [
        ({"mosaic": 0.5, "close_mosaic": 3}, [7.0]),
        ({"mosaic": 0.0, "cutmix": 0.1, "close_mosaic": 3}, [7.0]),
        ({"mosaic": 0.0, "close_mosaic": 3}, []),
        ({"mosaic": 1.0, "close_mosaic": 0}, []),
        ({"mosaic": 1.0, "close_mosaic": 10}, []),
    ],
)
def test_the_end_of_the_mosaics_is_guarded(augment, expected):
    """With 3 of 10 epochs without them, epoch 7 is the first of these."""
    asked = make_recipe(epochs=10, augment=augment, trd={"resolution": 32, "probability": 1.0, "variant": "paper"})
    assert change_points(asked) == expected
    whole = {epoch for epoch, is_reduced in enumerate(reduced_epochs(asked)) if not is_reduced}
    assert whole == ({5, 6, 7, 8} if expected else set())


def test_an_exact_share():
    """0.3 of 20 epochs are 6, of which none is guarded; 0.9 are 18, but 8 of 20 are guarded."""
    for seed in range(50):
        assert sum(reduced_epochs(recipe(STEPS, probability=0.3, exact=True, seed=seed))) == 6
    assert sum(reduced_epochs(recipe(STEPS, probability=0.9, exact=True))) == 12
    assert len({reduced_epochs(recipe(probability=0.3, exact=True, seed=seed)) for seed in range(10)}) == 10


def test_every_second_epoch():
    """Steps after 10 and 15 epochs guard the 9th to 12th and the 14th to 17th, the end the 19th and 20th."""
    found = reduced_epochs(recipe(STEPS, variant="regular"))
    assert [number for number, is_reduced in enumerate(found, start=1) if is_reduced] == [2, 4, 6, 8, 18]


def test_small_sizes_first():
    """Of 20 epochs 12 are progressive, but 9 to 12 are guarded; sizes rise from 16 px by 16 / 12 px an epoch."""
    asked = recipe(STEPS, variant="progressive", probability=0.6)
    assert [epoch for epoch, is_reduced in enumerate(reduced_epochs(asked)) if is_reduced] == list(range(8))
    assert reduced_sizes(asked, 1) == (16, 17, 19, 20, 21, 23, 24, 25, 27, 28, 29, 31)


def test_batches_are_split_in_every_epoch():
    assert all(reduced_epochs(recipe(STEPS, variant="batch", probability=0.1)))


# ----------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("resolution", "variant", "multiple", "expected"),
    [
        (84, "random", 1, (84,)),
        (0.5, "random", 1, (48,)),
        (1, "random", 32, (96,)),
        (0.6, "random", 32, (64,)),  # 57.6 px
        (0.01, "regular", 32, (32,)),
        (32, "batch", 32, (32,)),
        (32, "mixed", 32, (32, 64, 96)),
        (94, "mixed", 1, (94, 95, 96)),
        (32, "three", 32, (32, 64)),
        (48, "three", 1, (48, 72)),
        (96, "three", 32, (96,)),
    ],
)
def test_sizes(resolution, variant, multiple, expected):
    assert reduced_sizes(recipe(image_size=96, resolution=resolution, variant=variant), multiple) == expected


@pytest.mark.parametrize(
    ("resolution", "variant", "message"),
    [
        (128, "random", "trd.resolution: 128 is above image_size 96; it makes images smaller"),
        (48, "random", "trd.resolution: 48 is not a multiple of 32; the nearest are 32 and 64"),
        (16, "random", "trd.resolution: 16 is not a multiple of 32; the least is 32"),
        (64.5, "random", "trd.resolution: 64.5 is not a multiple of 32; the nearest are 64 and 96"),
        (
            64,
            "three",
            "trd.variant: three needs a size between trd.resolution 64 and image_size 96 that is a multiple of 32; "
            "choose a smaller resolution",
        ),
    ],
)
def test_what_is_no_resolution(resolution, variant, message):
    with pytest.raises(InputError) as caught:
        reduced_sizes(recipe(image_size=96, resolution=resolution, variant=variant), 32)
    assert str(caught.value) == message
