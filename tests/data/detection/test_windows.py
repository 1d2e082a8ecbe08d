"""Tiles of large images as rows of a table, and how often an epoch has each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from detect.config.base import build
from detect.config.recipe import DetectionRecipe
from detect.config.sampling import TilesConfig
from detect.data.annotations import AnnotationTable, offsets_of
from detect.data.detection.images import CachedImages, ImageFiles, build_cache
from detect.data.detection.loading import TrainingLoader
from detect.data.detection.repeats import image_repeats
from detect.data.detection.sampling import draw_rows, epoch_length
from detect.data.detection.windows import cut_windows, describe_windows
from detect.data.images import ImageError, write_image
from detect.errors import InputError
from detect.models.checkpoint import Checkpoint
from tests.data.detection.test_images import CountingFiles, table_of

TILES = TilesConfig(size_px=64, overlap=0.25)


def with_boxes(table: AnnotationTable, boxes: list[tuple[float, ...]], crowd: tuple[int, ...] = ()) -> AnnotationTable:
    """``boxes`` are (row, x1, y1, x2, y2, label), by rows; ``crowd`` are their positions that are crowd regions."""
    values = np.array(boxes, np.float64).reshape(-1, 6)
    return dataclasses.replace(
        table,
        box_offsets=offsets_of(np.bincount(values[:, 0].astype(int), minlength=len(table))),
        boxes_xyxy_px=values[:, 1:5],
        labels=values[:, 5].astype(np.int64),
        is_crowd=np.isin(np.arange(len(values)), crowd),
        areas=np.ones(len(values)),
        names=("a", "b"),
        category_ids=np.array([1, 2]),
    )


def test_windows_and_what_they_show(tmp_path: Path) -> None:
    """An image of 112 x 64 px is two tiles of 64 px that begin at 0 and 48; one of 40 x 30 px stays whole.

    Box A, 10 to 30, is in the first tile. B, 50 to 60, is in both, from 2 in the second. C, 40 to 140 though the image
    ends at 112: 24 px of 100 are in the first, all that there is in the second: 64 of 100. D, 63 to 73: the tenth that
    is in the first is 1 px wide, under 1.5 px. E is a crowd region that reaches 0.5 px into the second.
    """
    table = with_boxes(
        table_of(tmp_path, [(64, 112), (30, 40)]),
        [
            (0, 10, 5, 30, 25, 0),
            (0, 50, 5, 60, 15, 1),
            (0, 40, 20, 140, 40, 0),
            (0, 63, 0, 73, 10, 1),
            (0, 20, 40, 48.5, 60, 0),
            (1, 1, 2, 11, 12, 1),
        ],
        crowd=(4,),
    )
    cut = cut_windows(table, TILES, 64)
    assert cut.sizes_hw.tolist() == [[64, 64], [64, 64], [30, 40]]
    assert [cut.path(row).name for row in range(3)] == ["0.png", "0.png", "1.png"]
    assert cut.image_ids.tolist() == [1, 1, 2]
    assert cut.boxes(0)[0].tolist() == [[10, 5, 30, 25], [50, 5, 60, 15], [40, 20, 64, 40], [20, 40, 48.5, 60]]
    assert cut.boxes(1)[0].tolist() == [[2, 5, 12, 15], [0, 20, 64, 40], [15, 0, 25, 10], [0, 40, 0.5, 60]]
    assert cut.boxes(2)[0].tolist() == [[1, 2, 11, 12]]
    assert cut.boxes(1)[1].tolist() == [1, 0, 1, 0]
    assert cut.boxes(1)[2].tolist() == [False, False, False, True]
    whole = table.read(0)
    np.testing.assert_array_equal(cut.read(0), whole[:, :64])
    np.testing.assert_array_equal(cut.read(1), whole[:, 48:])
    np.testing.assert_array_equal(cut.read(2), table.read(1))
    # At half the size, 32 px of the network, 2 px of box D would be 1 px: it takes 3 px to be learned.
    wider = dataclasses.replace(table, boxes_xyxy_px=table.boxes_xyxy_px - np.array([1, 0, 1, 0]))
    assert len(cut_windows(wider, TILES, 64).boxes(0)[0]) == 5
    assert len(cut_windows(wider, TILES, 32).boxes(0)[0]) == 4


def test_rows_that_are_selected_keep_their_windows(tmp_path: Path) -> None:
    cut = cut_windows(table_of(tmp_path, [(64, 112), (30, 40)]), TILES, 64)
    second = cut.select(np.array([False, True, False]))
    np.testing.assert_array_equal(second.read(0), cut.read(1))


def test_an_image_of_another_size_than_annotated(tmp_path: Path) -> None:
    cut = cut_windows(table_of(tmp_path, [(64, 112)]), TILES, 64)
    write_image(cut.path(0), np.zeros((128, 112, 3), np.uint8))  # large enough for both windows
    with pytest.raises(ImageError, match=r"0\.png: has \(128, 112\) pixels .* annotation says \(64, 112\)"):
        ImageFiles(cut, 64).read(1)


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_cache_decodes_each_file_once(tmp_path: Path, kind: str) -> None:
    table = table_of(tmp_path, [(64, 112), (100, 100), (30, 40)])
    table.path(1).write_bytes(b"damaged")
    cut = cut_windows(table, TILES, 32)
    files = CountingFiles(cut, 32)
    cache = build_cache(files, kind, tmp_path)
    assert isinstance(cache, CachedImages)
    assert sorted(files.decoded) == [0, 2, 6]  # two tiles, then four, then the whole image
    for row in (0, 1, 6):
        np.testing.assert_array_equal(cache.read(row), files.read(row))
    with pytest.raises(ImageError):
        cache.read(3)


@pytest.mark.parametrize("row", [0, 1])
def test_another_window_of_the_same_size_is_another_cache(tmp_path: Path, row: int) -> None:
    cut = cut_windows(table_of(tmp_path, [(64, 112)]), TILES, 32)
    one, other = (ImageFiles(cut.select(np.arange(2) == chosen), 32) for chosen in (row, 1 - row))
    build_cache(one, "disk", tmp_path)
    np.testing.assert_array_equal(build_cache(other, "disk", tmp_path).read(0), other.read(0))


def test_the_images_of_an_epoch() -> None:
    """Repeats 1, 0.25 (four times), 2.5 and 0: 4.5 are five samples; three epochs of four have an image of a quarter
    at most once each."""
    repeats = np.array([1, 0.25, 0.25, 0.25, 0.25, 2.5, 0])
    assert epoch_length(repeats) == 5
    counts = np.zeros(7)
    for seed in range(400):
        rows = draw_rows(np.random.default_rng(seed), repeats)
        found = np.bincount(rows, minlength=7)
        assert len(rows) == 5
        assert found[0] >= 1
        assert found[5] >= 2
        assert found[1:5].max() <= 1
        counts += found
    # Of the five samples 5 / 4.5 times the repeats.
    np.testing.assert_allclose(counts / 400, repeats * 5 / 4.5, atol=0.07)
    assert sorted(draw_rows(np.random.default_rng(0), np.ones(9)).tolist()) == list(range(9))
    # The same image does not come twice in a row because it was drawn twice.
    assert draw_rows(np.random.default_rng(0), np.full(4, 3.0)).tolist() != np.repeat(np.arange(4), 3).tolist()


def four_of_six(tmp_path: Path) -> AnnotationTable:
    """Six tiles, of which two have an object and one a crowd region only."""
    table = with_boxes(
        table_of(tmp_path, [(64, 304)]),
        [(0, 5, 5, 15, 15, 0), (0, 100, 5, 105, 15, 0), (0, 290, 0, 300, 20, 0)],
        crowd=(2,),
    )
    cut = cut_windows(table, TILES, 64)
    assert (len(cut), len(cut.labels)) == (6, 4)  # tiles begin at 0, 48, 96, ... 240; the second object is in two
    return cut.select(np.arange(6) != 1)


@pytest.mark.parametrize(("empty", "kept"), [(0.0, 0), (0.34, 1), (0.5, 2), (0.6, 3), (1.0, 3)])
def test_tiles_without_objects_are_thinned(tmp_path: Path, empty: float, kept: int) -> None:
    cut = four_of_six(tmp_path)
    recipe = build(DetectionRecipe, {"tiles": {"size_px": 64, "overlap": 0.25, "empty": empty}}, "here")
    repeats = image_repeats(cut, recipe)
    assert repeats is not None
    np.testing.assert_allclose(repeats, [1, 1, kept / 3, kept / 3, kept / 3])
    assert f"1 images are 5 tiles, 3 of them without objects, of which each epoch leaves out {3 - kept} " in (
        describe_windows(cut.select(np.arange(5) < 1), cut, recipe.tiles)
    )
    assert image_repeats(dataclasses.replace(cut, windows=None), recipe) is None


def test_every_tile_with_objects_in_every_epoch(tmp_path: Path) -> None:
    keys = {
        "tiles": {"size_px": 64, "overlap": 0.25, "empty": 0.34},
        "batch_size": 1,
        "image_size": 64,
        "workers": 0,
        "epochs": 8,
        "augment": {"mosaic": 0.0, "close_mosaic": 0},
    }
    loader = TrainingLoader(four_of_six(tmp_path), build(DetectionRecipe, keys, "here"))
    epochs = [sorted(int(batch.rows[0]) for batch in loader.epoch(number)) for number in range(8)]
    assert all(rows[:2] == [0, 1] and len(rows) == 3 for rows in epochs)
    assert len({rows[2] for rows in epochs}) > 1  # another empty one in another epoch
    assert epochs == [sorted(int(batch.rows[0]) for batch in loader.epoch(number)) for number in range(8)]


def test_sides_that_make_no_sense() -> None:
    with pytest.raises(InputError, match=r"here: tiles\.size_px: must be 0 or at least 32, found 31"):
        build(DetectionRecipe, {"tiles": {"size_px": 31}}, "here")


def test_a_checkpoint_remembers_its_tiles() -> None:
    for provenance, tile_px in [
        ({"settings": {"recipe": {"tiles": {"size_px": 320}}}}, 320),
        ({"settings": {"recipe": {"tiles": {"size_px": 0}}}}, 0),
        ({"settings": {"recipe": {"tiles": [320]}}}, 0),
        ({"settings": {"recipe": {"tiles": {"size_px": "320"}}}}, 0),
        ({}, 0),
    ]:
        assert Checkpoint(None, ("a",), (1,), 64, {}, provenance).tile_px == tile_px
