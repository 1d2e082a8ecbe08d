"""Images of rare classes come more often."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np

from detect.config.base import build
from detect.config.recipe import DetectionRecipe
from detect.data.annotations import AnnotationTable, Windows
from detect.data.detection.loading import TrainingLoader
from detect.data.detection.repeats import describe_repeats, image_repeats, image_shares, repeat_factors
from tests.data.detection.test_images import table_of
from tests.data.detection.test_windows import with_boxes

BOX = (2, 2, 20, 20)


def sixteen(tmp_path: Path) -> AnnotationTable:
    """Class a is in images 0 to 7, twice in the first, b in image 8, with a in image 7, and as a crowd in image 9."""
    labels = [(0, 0), *((image, 0) for image in range(7)), (7, 1), (7, 0), (8, 1), (9, 1)]
    table = table_of(tmp_path, [(32, 32)] * 16)
    return with_boxes(table, [(image, *BOX, label) for image, label in labels], crowd=(11,))


def recipe_of(**keys: object) -> DetectionRecipe:
    plain = {"image_size": 32, "batch_size": 1, "workers": 0, "epochs": 6}
    return build(DetectionRecipe, {**plain, "augment": {"mosaic": 0.0, "close_mosaic": 0}, **keys}, "here")


def test_factors_by_hand(tmp_path: Path) -> None:
    """a is in half of the images, b in an eighth. At t = 0.5, a is not rare, b comes sqrt(0.5 / 0.125) = 2 times; an
    image with both as often as its rarer class. At t = 1, a comes sqrt(2) times, b sqrt(8)."""
    table = sixteen(tmp_path)
    assert image_shares(table).tolist() == [0.5, 0.125]
    assert repeat_factors(table, 0.5).tolist() == [1] * 7 + [2, 2] + [1] * 7
    np.testing.assert_allclose(repeat_factors(table, 1.0), [2**0.5] * 7 + [8**0.5] * 2 + [1] * 7)
    assert repeat_factors(table, 0.125).tolist() == [1] * 16
    assert describe_repeats(table, 0.5) == (
        "sampling: 1 of 2 classes are in less than 50 % of the images; 2 images come up to 2.0 times in an epoch, "
        "1.12 times as long"
    )


def test_the_images_of_an_epoch(tmp_path: Path) -> None:
    """rare_below 0.5: 18 samples, images 7 and 8 twice; the same in each run of the seed. At 0.28125, 1.5 times each:
    17 samples, and the fraction falls on one of them."""
    table = sixteen(tmp_path)
    twice = TrainingLoader(table, recipe_of(sampling={"rare_below": 0.5}))
    counts = Counter(int(batch.rows[0]) for batch in twice.epoch(0))
    assert counts == Counter([*range(16), 7, 8])
    recipe = recipe_of(sampling={"rare_below": 0.28125})
    loader, again = (TrainingLoader(table, recipe) for _ in range(2))
    epochs = [[int(batch.rows[0]) for batch in loader.epoch(number)] for number in range(6)]
    assert epochs[3] == [int(batch.rows[0]) for batch in again.epoch(3)]
    for rows in epochs:
        assert len(rows) == 17
        assert {*rows} == {*range(16)}
    assert {(Counter(rows) - Counter(range(16))).popitem()[0] for rows in epochs} == {7, 8}
    assert image_repeats(table, recipe_of()) is None


def test_empty_tiles_are_a_share_of_the_repeated_ones(tmp_path: Path) -> None:
    """Nine images with objects come 11 times, and 11 of the seven without, all of them, would be half; of a third,
    11 / 2 = 5."""
    table = sixteen(tmp_path)
    whole = np.array([[0, 0, 32, 32]] * 16)
    table = dataclasses.replace(table, windows=Windows(whole, table.sizes_hw))
    for empty, kept in ((0.5, 7), (1 / 3, 5)):
        repeats = image_repeats(table, recipe_of(sampling={"rare_below": 0.5}, tiles={"size_px": 32, "empty": empty}))
        assert repeats is not None
        np.testing.assert_allclose(repeats, [1] * 7 + [2, 2] + [kept / 7] * 7)
