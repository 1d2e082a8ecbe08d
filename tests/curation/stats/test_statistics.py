from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detect.config.data import load_data_config
from detect.curation.stats.advice import MODEL, Advice, advise
from detect.curation.stats.report import draw_statistics, statistics_text
from detect.curation.stats.statistics import DataStatistics, figures, measure
from detect.data.annotations import AnnotationTable, encode_paths, offsets_of
from detect.data.datasets import open_split
from detect.data.formats.coco_annotations import IMPOSSIBLE_AREA
from detect.errors import InputError
from detect.models.catalog import find_definition
from detect.training.settings import DEFAULT_MODEL

Box = tuple[int, int, float, float, float, float]
"""Row of the image, class, left, top, width, height."""


def table_of(sizes_wh: list[tuple[int, int]], boxes: list[Box], crowd: int = 0, names: str = "abc") -> AnnotationTable:
    """A table whose last ``crowd`` boxes are crowd regions; boxes in the order of their rows. There are no files."""
    rows = np.array([box[0] for box in boxes], np.int64)
    xywh = np.array([box[2:] for box in boxes], np.float64).reshape(-1, 4)
    return AnnotationTable(
        image_paths=encode_paths([]),
        image_ids=np.arange(len(sizes_wh)),
        has_own_ids=False,
        sizes_hw=np.array(sizes_wh, np.int32)[:, ::-1],
        box_offsets=offsets_of(np.bincount(rows, minlength=len(sizes_wh))),
        boxes_xyxy_px=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        labels=np.array([box[1] for box in boxes], np.int64),
        is_crowd=np.arange(len(boxes)) >= len(boxes) - crowd,
        areas=xywh[:, 2:].prod(axis=1),
        names=tuple(names),
        category_ids=np.arange(1, len(names) + 1),
    )


def squares(*sides: float, image: int = 640, image_size: int = 640, names: str = "a") -> DataStatistics:
    """One square image with squares of these sides."""
    boxes = [(0, 0, 0.0, 0.0, side, side) for side in sides]
    return measure(table_of([(image, image)], boxes, names=names), "pets", "train", image_size)


def test_figures() -> None:
    """Scaled to 320 px, the images of 640 and 160 px by 1/2 and 2."""
    boxes: list[Box] = [
        (0, 0, 0, 0, 12, 40),  # 6 x 20 px at 320; 480 px in the image: small
        (0, 0, 300, 200, 40, 80),  # 20 x 40 px; 3,200 px: medium
        (0, 1, 0, 0, 320, 240),  # 160 x 120 px; 76,800 px: large
        (1, 0, 40, 40, 7, 8),  # 14 x 16 px; 56 px: small
        (1, 2, 0, 0, 160, 120),  # a crowd region
    ]
    table = table_of([(640, 480), (160, 120), (160, 120)], boxes, crowd=1)
    found = figures(measure(table, "pets", "train", 320))
    # Shorter sides 6, 14, 20 and 120 px, of which the median is 17.
    sides = {key: found["shorter_side_px"][key] for key in ("under_8", "under_16", "under_32", "q50")}
    assert sides == {"under_8": 0.25, "under_16": 0.5, "under_32": 0.75, "q50": 17}
    assert found["area_in_image"] == {"small": 0.5, "medium": 0.25, "large": 0.25}
    assert (found["images"], found["boxes"], found["crowd_regions"], found["images_without_boxes"]) == (3, 4, 1, 1)
    assert found["image_sizes"] == [
        {"width": 160, "height": 120, "images": 2},
        {"width": 640, "height": 480, "images": 1},
    ]
    assert found["boxes_per_image"]["max"] == 3
    assert found["classes"] == [
        {"name": "a", "boxes": 3, "images": 2, "median_px": 14, "under_8_px": 0.3333},
        {"name": "b", "boxes": 1, "images": 1, "median_px": 120, "under_8_px": 0},
        {"name": "c", "boxes": 0, "images": 0, "median_px": None, "under_8_px": None},
    ]
    json.dumps(found, allow_nan=False)


def test_centres_are_shares_of_the_image() -> None:
    statistics = measure(table_of([(640, 480)], [(0, 0, 100, 100, 120, 40)]), "pets", "train", 320)
    np.testing.assert_allclose(statistics.centres, [[160 / 640, 120 / 480]])


def test_shares_at_another_size() -> None:
    statistics = squares(10, 20, image_size=640)
    assert [statistics.share_under(8, size) for size in (640, 480, 320, 128)] == [0, 0.5, 0.5, 1]  # 10 -> 7.5, 20 -> 4


@pytest.mark.parametrize("boxes", [[], [(0, 0, 0, 0, 9, 9)]])
def test_nothing_to_measure(boxes: list[Box]) -> None:
    with pytest.raises(InputError, match="pets val: has no boxes"):
        measure(table_of([(64, 64)], boxes, crowd=len(boxes)), "pets", "val", 64)


# ----------------------------------------------------------------------------------------------- advice


def advice_of(statistics: DataStatistics) -> dict[str, str]:
    """Reasons of the advice by its command or key."""
    return {what: why for why, what in advise(statistics, "--data d.yaml")}


def train(more: str) -> str:
    return f"detect train --data d.yaml --image-size {more}"


def tiles(side: str) -> str:
    return f"{train(side)} --set tiles.size_px={side}"


def test_large_boxes_need_nothing() -> None:
    assert advise(squares(40, 60, 100), "--data d.yaml") == []


def test_small_boxes() -> None:
    """Squares of 12 and 40 px in images of 640 px: at 320 px half of them are 6 px, at 448 px 8.4, at 416 px 7.8. From
    864 px on, none would be under 16 px, but the images have no more than 640: there half of them are, 12 px."""
    found = advice_of(squares(12, 40, image_size=320))
    assert found.keys() == {train("320"), train("640"), tiles("320")}
    assert found[train("320")].startswith("at 320 px, 50.0 % of the boxes are under 8 px and 50.0 % under 16 px")
    assert "--image-size 640, 0.0 % of the boxes are under 8 px and 50.0 % under 16 px, for 4.0" in found[train("640")]
    assert "the finest of most models; detect-n has cells of 4 px" in found[train("320")]


def test_the_smallest_size_that_does() -> None:
    """One box in five is 12 px at 640 px: 6 px at 320, 7.8 at 416, 8.4 at 448. Under 16 px one in five is allowed."""
    found = advice_of(squares(12, 60, 60, 60, 60, image_size=320))
    assert found.keys() == {train("320"), train("448"), tiles("320")}
    assert "for 2.0 times the arithmetic" in found[train("448")]  # (448 / 320) ** 2 = 1.96


def test_boxes_of_two_cells() -> None:
    """All of 10 px: none under 8 px, all under 16."""
    assert advice_of(squares(10, 10)).keys() == {train("640")}


def test_a_tenth_is_not_many() -> None:
    """Exactly a tenth under 8 px, and exactly half under 16 px: no advice; one more does it."""
    assert advise(squares(7, *[10] * 4, *[60] * 5), "--data d.yaml") == []
    assert advice_of(squares(7, *[10] * 5, *[60] * 4)).keys() == {train("640")}


def test_tiles_for_images_much_larger_than_the_input() -> None:
    """Squares of 18 px in 1,920 px: 6 px at 640, 18 px in tiles of 640 px."""
    found = advice_of(squares(18, 18, image=1920))
    assert "3.0 times as long" in found[tiles("640")]
    assert "in tiles of 640 px, 0.0 % of the boxes are under 8 px and 0.0 % under 16 px" in found[tiles("640")]
    # 10 px in 1,000 px: 6.4 px at 640. In 959 px the ratio is just under 1.5.
    found = advice_of(squares(10, 10, image=1000))
    assert "1.6 times as long as the network input, where 100.0 % of the boxes are under 8 px" in found[tiles("640")]
    assert "in tiles of 640 px, 0.0 % of the boxes are under 8 px and 100.0 % under 16 px" in found[tiles("640")]
    assert tiles("640") in advice_of(squares(10, 10, image=960))
    assert tiles("640") not in advice_of(squares(10, 10, image=959))
    # 5 px stay under 8 px in tiles. Tiles lift one box of twelve, which is too few, or one of nine.
    assert tiles("640") not in advice_of(squares(5, 5, image=1000))
    assert tiles("640") not in advice_of(squares(*[5] * 11, 10, image=1000))
    assert tiles("640") in advice_of(squares(*[5] * 8, 10, image=1000))
    assert tiles("640") not in advice_of(squares(90, 90, image=1920))


def test_small_images_are_not_enlarged() -> None:
    """Images of 100 px fit 128, a fifth of 640: 0.04 of the arithmetic. Squares of 14 px then have 17.9 px."""
    found = advice_of(squares(14, 14, image=100))
    assert "for 0.04 of the arithmetic" in found[train("128")]
    assert train("128") not in advice_of(squares(4, 4, image=100))  # 5.1 px at 128 px


def test_imbalance() -> None:
    key = f"{train('640')} --set loss.focal_gamma=1.5"

    def found(common: int) -> dict[str, str]:
        boxes: list[Box] = [(0, 0, 0, 0, 50, 50)] * common + [(0, 1, 0, 0, 50, 50)]
        return advice_of(measure(table_of([(640, 640)], boxes), "pets", "train", 640))

    assert key not in found(20)  # class c has none, and is the business of `check`
    assert "the class a has 21 boxes and b 1, 21 times fewer" in found(21)[key]


def test_a_rare_class_before_an_absent_one() -> None:
    boxes: list[Box] = [(0, 1, 0, 0, 50, 50)] * 42 + [(0, 2, 0, 0, 50, 50)] * 2
    found = advice_of(measure(table_of([(640, 640)], boxes), "pets", "train", 640))
    assert "the class b has 42 boxes and c 2, 21 times fewer" in " ".join(found.values())
    alone = advise(measure(table_of([(640, 640)], boxes[:42]), "pets", "train", 640), "--data d.yaml")
    assert alone == []


def test_background_and_crowds() -> None:
    box: Box = (0, 0, 0, 0, 50, 50)
    mostly_empty = measure(table_of([(640, 640)] * 3, [box]), "pets", "train", 640)
    assert advice_of(mostly_empty)["background: drop"].startswith("66.7 % of the images have no boxes")
    crowded = squares(*[50] * 301)
    assert "an image has 301 boxes" in " ".join(advice_of(crowded).values())
    assert advise(squares(*[50] * 100), "--data d.yaml") == []
    # 301 objects of a class: 201 beyond COCO's 100, one beyond the 300 that are kept.
    (found,) = [one for one in advise(crowded, "--data d.yaml") if one.what.endswith("--data d.yaml --max-det 400")]
    assert "66.8 % of the objects lie beyond the 100 detections of a class and image" in found.why
    assert "0.3 % of the objects lie beyond the 300 detections of an image" in found.why
    assert figures(crowded)["objects_beyond_coco_limit"] == 0.6678


def test_the_advised_model_has_cells_of_4_px() -> None:
    assert MODEL == DEFAULT_MODEL
    assert find_definition(MODEL).rows[-1].inputs == ("p2", "p3", "p4", "p5")


# ------------------------------------------------------------------------------------ in words and pictures


def test_text() -> None:
    statistics = squares(6, 6, 60, 60)
    text = statistics_text(statistics, [Advice("half is small", "do this")])
    assert "pets train: 1 images, 4 boxes, 1 classes; at --image-size 640" in text
    assert "50.0 % under 8 px,  50.0 % under 16 px,  50.0 % under 32 px" in text
    assert text.endswith("1. half is small.\n   do this")
    assert statistics_text(statistics, []).endswith("Nothing in these figures asks for other settings.")


def test_many_classes_are_shortened() -> None:
    names = "".join(chr(ord("A") + i) for i in range(50))
    text = statistics_text(squares(60, names=names), [])
    assert "... 30 more ..." in text


@pytest.mark.slow
def test_picture(tmp_path: Path) -> None:
    draw_statistics(tmp_path / "new" / "stats.png", squares(4, 20, 100, names="$_\x1b人é" * 8))
    image = cv2.imread(str(tmp_path / "new" / "stats.png"))
    assert image is not None
    assert image.shape == (960, 1680, 3)  # 14 x 8 inches of 120 px


# ----------------------------------------------------------------------------------------------- real data


def test_deeppcb(real_data: Path) -> None:
    """Its data card: 33 % of the boxes of both splits are small by COCO's measure; six classes, 640 px."""
    table = open_split(load_data_config("deeppcb", str(real_data / "deeppcb")), "train")
    found: dict[str, Any] = figures(measure(table, "deeppcb", "train", 320))
    assert (found["images"], found["boxes"], len(found["classes"])) == (850, 5827, 6)
    assert found["area_in_image"]["small"] == pytest.approx(0.33, abs=0.01)
    assert found["image_sizes"] == [{"width": 640, "height": 640, "images": 850}]


def test_areas_that_cannot_be_are_not_counted_by() -> None:
    table = table_of([(640, 640)], [(0, 0, 0.0, 0.0, 76.0, 76.0)], names="a")
    table = dataclasses.replace(table, areas=np.ones(1))
    assert figures(measure(table, "pets", "train", 640))["area_in_image"]["small"] == 1
    table.problems.add(IMPOSSIBLE_AREA, "annotation 1")
    assert figures(measure(table, "pets", "train", 640))["area_in_image"]["medium"] == 1  # 32² < 76² < 96²
