"""What is noticed of data that has changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from detect.data.annotations import encode_paths
from detect.data.classification.table import ClassTable
from detect.training.checks import differences, fingerprint_of
from tests.evaluation.synthetic import make_table


def table(boxes=((0, 1, 1, 9, 9), (1, 2, 2, 8, 8)), folder="a", names=("x", "y")):
    """Two images, the second without boxes."""
    made = make_table([list(boxes), []], names=names)
    return dataclasses.replace(made, image_paths=encode_paths([Path(folder, "0.png"), Path(folder, "1.png")]))


def change(before, now):
    return differences({"train": fingerprint_of(before)}, {"train": fingerprint_of(now)})


def test_what_is_the_same():
    assert change(table(), table()) == ""
    assert change(table(), table(folder="somewhere/else")) == ""
    assert differences({}, {"train": fingerprint_of(table())}) == ""  # of an older version


def test_what_has_changed():
    same = "train has as many images and boxes, but other names, sizes, boxes or labels"
    moved = ((0, 1, 1, 9, 9.5), (1, 2, 2, 8, 8))
    assert change(table(), table(moved)) == same
    assert change(table(), table(((1, 1, 1, 9, 9), (1, 2, 2, 8, 8)))) == same
    assert change(table(), dataclasses.replace(table(), sizes_hw=np.full((2, 2), 7, np.int32))) == same
    assert (
        change(table(), dataclasses.replace(table(), image_paths=encode_paths([Path("0.png"), Path("2.png")]))) == same
    )
    assert change(table(), table(moved[:1])) == "train has 2 -> 1 boxes"
    assert change(table(), table().select(np.array([True, False]))) == "train has 2 -> 1 images"
    assert change(table(), table(names=("y", "x"))) == "train has other classes (in another order)"
    assert change(table(), table(names=("x", "z"))) == "train has other classes (without 'y', with 'z')"


def test_classification():
    def images(*labels):
        return ClassTable(encode_paths([Path(f"{n}.png") for n in range(len(labels))]), np.array(labels), ("x", "y"))

    assert change(images(0, 1), images(0, 1)) == ""
    assert change(images(0, 1), images(0, 1, 1)) == "train has 2 -> 3 images"
    assert change(images(0, 1), images(1, 0)) != ""


def test_a_strangers_checkpoint_may_say_anything():
    now = {"train": fingerprint_of(table())}
    assert differences({"train": 5}, now) == "train has None -> 2 images, None -> 2 boxes"
    assert "images" in differences({"train": {"classes": 7, "images": "many"}}, now)
