"""Equal seeds give equal numbers, other keys give others; the record of what made a file is plain text."""

from __future__ import annotations

import json
import random
import sys
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
import torch

import detect
from detect.runtime.reproducibility import collect_provenance, generator, seed_everything


def draw() -> list[float]:
    """A number of each global generator."""
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63])
def test_seed_everything(seed: int) -> None:
    seed_everything(seed)
    first = draw()
    assert draw() != first
    seed_everything(seed)
    assert draw() == first
    seed_everything(seed + 1)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_generator_is_a_function_of_its_key() -> None:
    assert generator(1, 2, 3).integers(2**62) == generator(1, 2, 3).integers(2**62)


def test_generator_does_not_touch_the_global_state() -> None:
    seed_everything(0)
    first = draw()
    seed_everything(0)
    generator(5).random(100)
    assert draw() == first


def test_each_part_of_the_key_counts() -> None:
    """Also the order, and a zero at the end: the key of an epoch is not that of its sample 0."""
    keys = [(0,), (0, 0), (0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (1,), (0, 1), (2**32, 0)]
    first = {int(generator(*key).integers(2**62)) for key in keys}
    assert len(first) == len(keys)


def test_neighbouring_keys_are_independent() -> None:
    """The mean of n uniform numbers is 1/2 with deviation 1/sqrt(12 n): 0.0065 for 2,000, of which four are allowed."""
    first = np.array([generator(0, 3, position).random() for position in range(2000)])
    assert abs(first.mean() - 0.5) < 4 * 0.0065
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4 / 2000**0.5


def test_plain_values_that_say_when_and_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--model", "yolov5n"])
    found = collect_provenance()
    assert json.loads(json.dumps(found)) == found
    assert all(type(value) is str for value in found.values())  # a str of another class is refused by weights_only
    assert (found["detect"], found["torch"]) == (detect.__version__, str(torch.__version__))
    assert found["command"] == "train.py --model yolov5n"
    age = datetime.now(timezone.utc) - datetime.fromisoformat(found["date"])
    assert timedelta(0) <= age < timedelta(seconds=60)
