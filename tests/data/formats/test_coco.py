from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import MARKS, AnnotationTable
from detect.data.checks import (
    BAD_IMAGE,
    NO_AREA,
    NOT_FINITE,
    OTHER_SIZE,
    OUTSIDE,
    REPEATED,
    SHARED_FILE,
    WRONG_SIZE,
)
from detect.data.formats import coco, coco_annotations, coco_json
from detect.data.formats.image_names import FOREIGN_NAME, OUTSIDE_NAME
from detect.data.recognition import with_format
from detect.errors import InputError

_CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 0, "name": "person"}, {"id": 90, "name": "brush"}]


def _content(**changes: Any) -> dict[str, Any]:
    """Two images of 40 x 30 px with one box each; the keys in ``changes`` are replaced."""
    content = {
        "images": [
            {"id": 5, "file_name": "a.jpg", "width": 40, "height": 30},
            {"id": 0, "file_name": "sub/b.jpg", "width": 40, "height": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 90, "bbox": [1.5, 2, 3, 4], "area": 7.25, "iscrowd": 0},
            {"id": 2, "image_id": 5, "category_id": 0, "bbox": [10, 10, 20.5, 5], "area": 50, "iscrowd": 1},
        ],
        "categories": _CATEGORIES,
    }
    return content | changes


def _box(number: int, box: Any, **changes: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 5, "category_id": 18, "bbox": box, "area": 1, "iscrowd": 0} | changes


def _config(root: Path, names: tuple[str, ...] | None = None) -> DataConfig:
    return DataConfig("test", str(root), {"val": SplitConfig("images", "a.json")}, names=names)


def _read(root: Path, content: Any, names: tuple[str, ...] | None = None) -> AnnotationTable:
    (root / "images" / "sub").mkdir(parents=True, exist_ok=True)
    for name in ("a.jpg", "sub/b.jpg"):
        Image.new("RGB", (40, 30)).save(root / "images" / name)
    text = content if isinstance(content, (str, bytes)) else json.dumps(content)
    (root / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return coco.read_coco(_config(root, names), "val")


def test_ids_in_any_order_with_gaps_and_zero(tmp_path: Path) -> None:
    table = _read(tmp_path, _content())
    assert table.names == ("person", "dog", "brush")
    assert table.category_ids.tolist() == [0, 18, 90]
    assert table.image_ids.tolist() == [5, 0]
    assert table.has_own_ids
    assert table.is_labelled
    assert table.sizes_hw.tolist() == [[30, 40], [30, 40]]
    assert table.path(1) == tmp_path / "images" / "sub" / "b.jpg"
    # Image 5 is row 0: its box [10, 10, 20.5, 5] ends at 10 + 20.5, 10 + 5.
    boxes, labels, is_crowd = table.boxes(0)
    assert (boxes.tolist(), labels.tolist(), is_crowd.tolist()) == ([[10, 10, 30.5, 15]], [0], [True])
    boxes, labels, is_crowd = table.boxes(1)
    assert (boxes.tolist(), labels.tolist(), is_crowd.tolist()) == ([[1.5, 2, 4.5, 6]], [2], [False])
    assert table.areas.tolist() == [50, 7.25]
    assert not table.problems


def test_no_annotations_are_background_and_no_list_is_unlabelled(tmp_path: Path) -> None:
    table = _read(tmp_path, _content(annotations=[]))
    assert (len(table), table.boxes(0)[0].shape, table.is_labelled) == (2, (0, 4), True)
    content = _content()
    del content["annotations"]
    table = _read(tmp_path, content)
    assert (len(table), table.boxes(1)[0].shape, table.is_labelled) == (2, (0, 4), False)
    assert not table.problems


def test_missing_fields_have_defaults(tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "a.jpg"}, {"id": 6, "file_name": "sub/b.jpg", "width": None, "height": None}]
    annotation = {"image_id": 5, "category_id": 18, "bbox": [1, 2, 3, 4]}
    table = _read(
        tmp_path, _content(images=images, annotations=[annotation, {**annotation, "area": None, "bbox": [1, 2, 3, 5]}])
    )
    assert table.sizes_hw.tolist() == [[30, 40], [30, 40]]
    assert table.areas.tolist() == [12, 15]  # 3 * 4 and 3 * 5
    assert table.is_crowd.tolist() == [False, False]
    assert not table.problems


def test_ids_written_as_floats(tmp_path: Path) -> None:
    images = [{"id": 5.0, "file_name": "a.jpg", "width": 40.0, "height": 30.0}]
    table = _read(
        tmp_path, _content(images=images, annotations=[_box(1, [1, 2, 3, 4], image_id=5.0, category_id=18.0)])
    )
    assert table.image_ids.tolist() == [5]
    assert table.labels.tolist() == [1]


def test_chosen_names_rule_order_and_drop_the_others(tmp_path: Path) -> None:
    table = _read(tmp_path, _content(), names=("brush", "dog"))
    assert table.names == ("brush", "dog")
    assert table.category_ids.tolist() == [90, 18]
    assert table.labels.tolist() == [0]  # the person is dropped, as asked
    assert len(table) == 2
    assert not table.problems


def test_what_is_skipped_and_what_is_kept(tmp_path: Path) -> None:
    annotations = [
        _box(0, [1, 1, 2, 2]),
        _box(1, [1, 1, 2, 2]),  # repeats the one above
        _box(1, [3, 3, 2, 2]),  # a duplicate id
        _box(2, [3, 3, 2, 2], image_id=77),
        _box(3, [3, 3, 2, 2], image_id="5"),
        _box(4, [3, 3, 2, 2], category_id=77),
        _box(5, [3, 3, 2]),
        _box(6, [3, 3, 2, "2"]),
        _box(7, None),
        "no mapping",
        _box(8, [5, 5, 0, 3]),
        _box(9, [50, 5, 3, 3]),
        _box(10, [float("nan"), 5, 3, 3]),
        _box(11, [10**400, 5, 3, 3]),
        _box(12, [6, 6, 3, 3], area=float("nan")),
        _box(13, [7, 7, 3, 3], area=-4),
    ]
    table = _read(tmp_path, _content(annotations=annotations))
    counts = {
        coco_annotations.ZERO_ID: 1,
        coco_annotations.REPEATED_ID: 1,
        coco_annotations.UNKNOWN_IMAGE: 1,
        coco_annotations.OTHER_TYPE_ID: 1,
        coco_annotations.UNKNOWN_CATEGORY: 1,
        coco_annotations.BAD_ANNOTATION: 4,
        coco_annotations.BAD_AREA: 2,
        NO_AREA: 1,
        OUTSIDE: 1,
        NOT_FINITE: 2,
        REPEATED: 2,
        coco_annotations.IMPOSSIBLE_AREA: 4,  # 1 of every box that has one
    }
    assert {kind: table.problems.count(kind) for kind in counts} == counts
    assert len(table.problems.summary()) == len(counts)
    assert table.boxes(0)[0][:, 0].tolist() == [1, 1, 3, 3, 6, 7]
    assert table.areas.tolist() == [1, 1, 1, 1, 9, 9]
    assert [a["id"] for a in table.to_coco()["annotations"]] == [1, 2, 3, 4, 5, 6]


def test_bad_images_are_skipped_with_their_boxes(tmp_path: Path) -> None:
    images = [
        {"id": 1, "file_name": "missing.jpg", "width": 40, "height": 30},
        {"id": 2, "file_name": "sub/b.jpg", "width": 80, "height": 60},
        {"id": 5, "file_name": "a.jpg", "width": 40, "height": 30},
        {"id": 6, "file_name": "a.jpg", "width": 40, "height": 30},
        {"id": "7", "file_name": "a.jpg"},
        {"id": 8},
        None,
    ]
    annotations = [
        _box(1, [1, 2, 3, 4], image_id=1),
        _box(2, [1, 2, 3, 4], image_id=2),
        _box(3, [5, 6, 7, 8], image_id=6),
    ]
    table = _read(tmp_path, _content(images=images, annotations=annotations))
    assert table.image_ids.tolist() == [5, 6, 7]
    assert table.image_ids_of_file == [5, 6, "7"]
    assert table.box_offsets.tolist() == [0, 0, 1, 1]
    assert table.boxes(1)[0].tolist() == [[5, 6, 12, 14]]
    counts = {BAD_IMAGE: 1, WRONG_SIZE: 1, SHARED_FILE: 1, coco.BAD_IMAGE_ENTRY: 2, coco.TEXT_ID: 1}
    assert {kind: table.problems.count(kind) for kind in counts} == counts
    assert len(table.problems.summary()) == len(counts)


@pytest.mark.parametrize(
    ("declared", "box", "kind"),
    [
        ((41, 30), [10, 10, 30, 20], OTHER_SIZE),  # one pixel off, and the box ends at (40, 30), in the corner
        ((41, 30), [10, 10, 35, 20], WRONG_SIZE),  # it ends at x = 45, outside
        ((80, 60), [10, 10, 5, 5], WRONG_SIZE),  # of an enlarged copy: the box may lie anywhere
        ((0, 0), [10, 10, 30, 20], None),
    ],
)
def test_declared_sizes_that_are_not_the_files(
    tmp_path: Path, declared: tuple[int, int], box: list[float], kind: str | None
) -> None:
    images = [{"id": 5, "file_name": "a.jpg", "width": declared[0], "height": declared[1]}, _content()["images"][1]]
    table = _read(tmp_path, _content(images=images, annotations=[_box(1, box, area=25)]))
    assert 5 in table.image_ids.tolist() or kind == WRONG_SIZE
    assert [found[0] for found in table.problems.found() if found[0] in (OTHER_SIZE, WRONG_SIZE)] == [kind] * bool(kind)


def test_categories_that_share_a_name_stay_apart(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "cell"}, {"id": 1, "name": "cell"}, {"id": 2, "name": "dust"}]
    annotations = [_box(1, [1, 2, 3, 4], category_id=1)]
    table = _read(tmp_path, _content(categories=categories, annotations=annotations))
    assert table.names == ("cell", "cell", "dust")
    assert table.problems.count(coco.SHARED_NAME) == 1
    with pytest.raises(InputError, match="names: 'cell' is the name of several categories"):
        _read(tmp_path, _content(categories=categories, annotations=annotations), names=("cell",))


# ------------------------------------------------------------------------------- as other tools write it


def test_image_ids_that_are_text(tmp_path: Path) -> None:
    images = [{"id": "left", "file_name": "a.jpg"}, {"id": "right", "file_name": "sub/b.jpg"}]
    annotations = [_box(1, [1, 2, 3, 4], image_id="right", area=12), _box(2, [1, 2, 3, 4], image_id="up", area=12)]
    table = _read(tmp_path, _content(images=images, annotations=annotations))
    assert (table.image_ids.tolist(), table.image_ids_of_file) == ([1, 2], ["left", "right"])
    assert table.box_offsets.tolist() == [0, 0, 1]
    assert table.problems.found() == [
        (coco_annotations.UNKNOWN_IMAGE, 1, ('annotation 2 of image "up"',)),
        (coco.TEXT_ID, 2, ('"left"', '"right"')),
    ]
    assert table.select(np.array([False, True])).image_ids_of_file == ["right"]


@pytest.mark.parametrize(
    ("ids", "wanted", "numbers", "is_told"),
    [
        (["5", "12"], ["5", "12"], [5, 12], True),  # digits throughout: their numbers
        ([5, 12], ["5", "12"], [5, 12], False),  # the list has numbers, the annotations text
        (["5", "12"], [5, 12.0], [5, 12], True),
        ([5.0, 12.0], [5, 12], [5, 12], False),
        ([2**63, 1], [2**63, 1], [1, 2], True),  # beyond int64
        (["05", "5"], ["05", "5"], [1, 2], True),  # two texts of one number stay two
        (["a" * 999, "b"], ["a" * 999, "b"], [1, 2], True),
    ],
)
def test_ids_of_other_types(
    tmp_path: Path, ids: list[Any], wanted: list[Any], numbers: list[int], is_told: bool
) -> None:
    images = [{"id": key, "file_name": name} for key, name in zip(ids, ("a.jpg", "sub/b.jpg"), strict=True)]
    annotations = [_box(n, [1, 2, 3, 4], image_id=key, area=12) for n, key in enumerate(wanted, start=1)]
    table = _read(tmp_path, _content(images=images, annotations=annotations))
    assert (table.image_ids.tolist(), table.image_ids_of_file) == (numbers, ids)
    assert table.box_offsets.tolist() == [0, 1, 2]
    assert bool(table.problems.count(coco.TEXT_ID)) is is_told
    is_text = [isinstance(one, str) for one in (*ids, *wanted)]
    is_mixed = any(is_text) and not all(is_text)
    assert table.problems.count(coco_annotations.OTHER_TYPE_ID) == 2 * is_mixed


@pytest.mark.parametrize("key", [True, None, 1.5, "", [5], {"id": 5}, 1e400, "a" * 1001])
def test_what_is_no_id(tmp_path: Path, key: Any) -> None:
    images = [{"id": 5, "file_name": "a.jpg"}, {"id": key, "file_name": "sub/b.jpg"}]
    table = _read(tmp_path, _content(images=images, annotations=[_box(1, [1, 2, 3, 4], image_id=key)]))
    assert (table.image_ids.tolist(), len(table.labels)) == ([5], 0)
    assert table.problems.count(coco.BAD_IMAGE_ENTRY) == table.problems.count(coco_annotations.UNKNOWN_IMAGE) == 1


def test_category_ids_that_are_text(tmp_path: Path) -> None:
    categories = [{"id": "10", "name": "ten"}, {"id": "9", "name": "nine"}]
    annotations = [_box(1, [1, 2, 3, 4], category_id="10", area=12), _box(2, [5, 2, 3, 4], category_id=9, area=12)]
    table = _read(tmp_path, _content(categories=categories, annotations=annotations))
    assert (table.names, table.category_ids.tolist()) == (("nine", "ten"), [9, 10])
    assert (table.category_ids_of_file, table.labels.tolist()) == (["9", "10"], [1, 0])
    categories = [{"id": "z", "name": "first"}, {"id": "a", "name": "second"}]
    table = _read(tmp_path, _content(categories=categories, annotations=[_box(1, [1, 2, 3, 4], category_id="a")]))
    assert (table.names, table.category_ids.tolist(), table.labels.tolist()) == (("first", "second"), [1, 2], [1])


def test_a_category_that_only_groups_others_is_left_out(tmp_path: Path) -> None:
    categories: list[dict[str, Any]] = [
        {"id": 0, "name": "blobs", "supercategory": "none"},
        {"id": 1, "name": "red", "supercategory": "blobs"},
        {"id": 2, "name": "none of them", "supercategory": "none"},
    ]
    annotations = [_box(1, [1, 2, 3, 4], category_id=1, area=12)]
    table = _read(tmp_path, _content(categories=categories, annotations=annotations))
    assert (table.names, table.category_ids.tolist()) == (("red", "none of them"), [1, 2])
    assert table.problems.found() == [(coco.GROUPING, 1, ("'blobs' (id 0)",))]
    # It stays where the data config asks for it, where it is annotated, and where it groups nothing.
    content = _content(categories=categories, annotations=annotations)
    assert _read(tmp_path, content, names=("blobs", "red")).names == ("blobs", "red")
    content["annotations"].append(_box(2, [5, 2, 3, 4], category_id=0, area=12))
    assert _read(tmp_path, content).names == ("blobs", "red", "none of them")
    for change in ({"supercategory": "things"}, {"id": 7}, {"name": "other"}):
        changed = [{**categories[0], **change}, *categories[1:]]
        assert len(_read(tmp_path, _content(categories=changed, annotations=annotations)).names) == 3


_SQUARE = [10, 5, 30, 5, 30, 20, 10, 20]  # left 10, top 5, 20 x 15
_MASK = {"size": [30, 40], "counts": [10 * 30 + 5, 15, 15, 15, 30 * 28 + 10]}  # columns 10 and 11, rows 5 to 19


@pytest.mark.parametrize(
    ("segmentation", "box"),
    [
        ([_SQUARE], [10, 5, 20, 15]),
        ([_SQUARE, [1, 1, 4, 1, 4, 9]], [1, 1, 29, 19]),
        (_SQUARE, [10, 5, 20, 15]),  # not in a list of polygons
        ([[10, 5], [30, 5], [30, 20]], [10, 5, 20, 15]),  # a list of points
        (_MASK, [10, 5, 2, 15]),
        ({"size": [30, 40], "counts": [300, 45, 855]}, [10, 0, 2, 30]),  # from one column into the next
    ],
)
@pytest.mark.parametrize("bbox", [{}, {"bbox": []}, {"bbox": None}, {"bbox": [0, 0, 0, 0]}])
def test_the_box_of_an_outline(tmp_path: Path, segmentation: Any, box: list[float], bbox: dict[str, Any]) -> None:
    annotation = {"id": 1, "image_id": 5, "category_id": 18, "segmentation": segmentation} | bbox
    table = _read(tmp_path, _content(annotations=[annotation]))
    assert table.exact_xywh_px.tolist() == [box]
    assert table.problems.found() == [(coco_annotations.FROM_OUTLINE, 1, ("annotation 1 of image 5",))]


@pytest.mark.parametrize("counts", [[300, 45, 855], None])
def test_a_compressed_mask_has_the_box_that_pycocotools_gives(tmp_path: Path, counts: list[int] | None) -> None:
    pixels = np.zeros((30, 40), np.uint8, order="F")
    pixels[5:20, 10:12] = pixels[7:9, 30:33] = 1
    if counts is not None:
        pixels = (np.arange(1200).reshape(40, 30).T // 45 == 7).astype(np.uint8, order="F")
    encoded = masks.encode(np.asfortranarray(pixels))
    mask = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    table = _read(
        tmp_path, _content(annotations=[{"id": 1, "image_id": 5, "category_id": 18, "segmentation": mask, "area": 1}])
    )
    assert table.exact_xywh_px.tolist() == [masks.toBbox(encoded).tolist()]


@pytest.mark.parametrize(
    "segmentation",
    [
        [],
        {},
        "outline",
        [[1, 2, 3, 4]],
        [[1, 2, "3", 4, 5, 6]],
        [[float("nan")] * 6],
        {"size": [30, 40]},
        {"size": [0, 40], "counts": [0, 0]},
        {"size": [30, 40], "counts": [300, 45]},  # does not fill its image
        {"size": [30, 40], "counts": [1200, 0]},  # encloses nothing
        {"size": [30, 40], "counts": [-300, 1500]},
        {"size": [30, 40], "counts": "~~~~"},
        {"size": [30, 40], "counts": "oooo"},  # ends within a number
        {"size": [10**9, 10**9], "counts": [5, 10**18 - 5]},
    ],
)
def test_what_is_no_outline(tmp_path: Path, segmentation: Any) -> None:
    annotation = {"id": 1, "image_id": 5, "category_id": 18, "segmentation": segmentation}
    table = _read(tmp_path, _content(annotations=[annotation, {**annotation, "id": 2, "bbox": [1, 2, 3, 4]}]))
    assert table.exact_xywh_px.tolist() == [[1, 2, 3, 4]]
    assert [(kind, count) for kind, count, _ in table.problems.found()] == [(coco_annotations.BAD_ANNOTATION, 1)]


def test_ignored_annotations_are_crowd_regions(tmp_path: Path) -> None:
    annotations = [
        _box(number, [1, 1 + number, 2, 2], ignore=ignore, iscrowd=iscrowd)
        for number, (ignore, iscrowd) in enumerate([(1, 0), (True, 0), (1, 1), (0, 0), (None, 0), ("yes", 0)], start=1)
    ]
    table = _read(tmp_path, _content(annotations=annotations))
    assert table.is_crowd.tolist() == [True, True, True, False, False, False]
    assert table.problems.count(coco_annotations.IGNORED) == 2  # the third is a crowd region anyway


@pytest.mark.parametrize(
    ("areas", "num_wrong"),
    [
        ([100, 400, 900, 225], 0),  # as large as the boxes
        ([1, 1, 1, 1], 4),
        ([0, 0, 0, 0], 4),
        ([1 / 12, 1 / 3, 0.75, 0.1875], 4),  # shares of an image of 40 x 30 px
        ([100, 400, 900, 100], 0),  # one of another shape
        ([100, 400, 900, 290], 1),  # 290 > (15 + 2)²
        ([25, 100, 225, 56.25], 4),  # a quarter each: of an image that was half as large
        ([78.5, 314, 706.5, 176.6], 0),  # circles
        ([150, 150, 150, 150], 4),  # the same for all
        ([None, None, None, None], 0),
        ([None, 400, 900, 1], 1),  # 1 < 1 % of 225
        ([None, 400, 900, 2], 0),  # of an outline that is not in the file
    ],
)
def test_areas_that_cannot_be(tmp_path: Path, areas: list[float | None], num_wrong: int) -> None:
    boxes = [(number, [0, 0, side, side]) for number, side in enumerate((10, 20, 30, 15), start=1)]
    annotations = [_box(*box, area=area) for box, area in zip(boxes, areas, strict=True)]
    table = _read(tmp_path, _content(annotations=annotations))
    assert table.problems.count(coco_annotations.IMPOSSIBLE_AREA) == num_wrong
    assert table.with_box_areas().areas.tolist() == [100, 400, 900, 225]
    if num_wrong == 4 and areas[0] == 1:
        assert table.problems.found()[0][2][0] == "annotation 1 of image 5: 1, box 10 x 10"


def test_a_thin_outline_explains_a_small_area(tmp_path: Path) -> None:
    thin = [0, 0, 0.1, 0, 30, 30, 29.9, 30]  # 0.1 x 30 = 3, of 900 px
    annotation = _box(1, [0, 0, 30, 30], area=3, segmentation=[thin])
    assert not _read(tmp_path, _content(annotations=[annotation])).problems
    full = {**annotation, "segmentation": [[0, 0, 30, 0, 30, 30, 0, 30]]}
    assert _read(tmp_path, _content(annotations=[full])).problems.count(coco_annotations.IMPOSSIBLE_AREA) == 1


def test_images_and_categories_listed_twice(tmp_path: Path) -> None:
    content = _content()
    content["images"] *= 2
    content["categories"] = [*_CATEGORIES, _CATEGORIES[0]]
    table = _read(tmp_path, content)
    assert (table.image_ids.tolist(), table.names, len(table.labels)) == ([5, 0], ("person", "dog", "brush"), 2)
    assert table.problems.found() == [(coco.REPEATED_IMAGE, 2, ("5: 'a.jpg'", "0: 'sub/b.jpg'"))]


def test_both_parsers_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """msgspec reads plain UTF-8; a byte-order mark makes it json."""
    square = [10, 10, 20, 10, 20, 20, 10, 20]
    outlines = [None, [], {}, "", [[]], [square], square, [square * 20], {"size": [30, 40], "counts": [1, 2, 1197]}]
    boxes = [[10, 10, 10, 10], None, [0, 0, 0, 0], [1, 2, 3], [1e300, 0, 1, 1]]
    annotations = [
        _box(1, box, segmentation=outline, area=area, truncated=1, attributes={"occluded": True}, id=2**64 + number)
        for number, (outline, box, area) in enumerate(itertools.product(outlines, boxes, (0.5, 100, None, "x")))
    ]
    content = json.dumps(_content(annotations=[*annotations, _box(1, [1, 2, 3, 4], id=-0.0)]))
    by_json = _read(tmp_path, content.encode("utf-8-sig"))
    monkeypatch.setattr(coco_json, "read_json", lambda *_: pytest.fail("json is used"))
    by_msgspec = _read(tmp_path, content)
    assert by_msgspec.problems.found() == by_json.problems.found()
    for field in dataclasses.fields(AnnotationTable):
        if field.name != "problems":
            np.testing.assert_equal(getattr(by_msgspec, field.name), getattr(by_json, field.name))
    assert set(MARKS) <= coco_json._Annotation.__annotations__.keys()


@pytest.mark.parametrize("text", ["NaN", "1e999", '"\\ud800"', "Infinity"])
def test_what_only_json_reads(tmp_path: Path, text: str) -> None:
    content = json.dumps(_content(annotations=[_box(1, [10, 10, 10, 10], area="AREA")])).replace('"AREA"', text)
    assert _read(tmp_path, content).problems.count(coco_annotations.BAD_AREA) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    content = _content(categories=[{"id": number, "name": f"Tür{number}"} for number in (0, 18, 90)])
    table = _read(tmp_path, json.dumps(content, ensure_ascii=False).encode(encoding))
    assert table.names == ("Tür0", "Tür18", "Tür90")
    config = DataConfig("test", str(tmp_path), {"val": SplitConfig("images", "a.json")})
    (tmp_path / "a.json").rename(tmp_path / "annotations")  # recognised by its first bytes
    splits = {"val": SplitConfig("images", "annotations")}
    assert with_format(dataclasses.replace(config, splits=splits)).format == "coco"


def test_windows_names_in_a_linked_folder(tmp_path: Path) -> None:
    """The labels of every image are kept, and none of the names is one of a missing file."""
    content = _content()
    content["images"][0]["file_name"] = "images\\a.jpg"
    content["images"][1]["file_name"] = f"{tmp_path}/images/sub/b.jpg"
    content["images"].append({"id": 9, "file_name": "../../secret.jpg"})
    content["annotations"].append(_box(3, [1, 2, 3, 4], image_id=9))
    table = _read(tmp_path, content)
    assert (table.image_ids.tolist(), len(table.labels)) == ([5, 0], 2)
    assert {kind: count for kind, count, _ in table.problems.found()} == {FOREIGN_NAME: 1, OUTSIDE_NAME: 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.json: is not JSON"),
        ("{", "a.json: is not JSON"),
        (b"\xff\xfe\xff", "a.json: is not JSON"),
        (b"\x89PNG\r\n", "a.json: is not JSON"),
        ("[" * 100_000, "a.json: is n"),  # not JSON or nested too deeply, as Python's version sees it
        ("1" * 10_000, "a.json: is not JSON"),
        ([{"image_id": 1}], "a.json: is a list, as detection results are"),
        ("3", "a.json: is not a COCO annotation file: must be a mapping"),
        ({"a": 1}, "a.json: is not a COCO annotation file: 'images' is missing, found a"),
        ({"images": [{}]}, "a.json: is not a COCO annotation file: 'categories' is missing"),
        (_content(images={}), "'images' must be a list"),
        (_content(annotations={}), "'annotations' must be a list"),
        (_content(images=[]), "a.json: lists no images"),
        (_content(images=[{"file_name": "a.jpg"}]), "no entry of 'images' has an id and a file_name"),
        (_content(categories=[]), "categories: is empty"),
        (_content(categories=[{"id": True, "name": "a"}]), "categories: .* has no id .a whole number or text. or no"),
        (_content(categories=[{"id": 1.5, "name": "a"}]), "categories: .* has no id .a whole number or text. or no"),
        (_content(categories=[{"id": 1}]), "categories: .* has no id .a whole number or text. or no name"),
        (
            '{"images": ["\xc4\xe3"]}'.encode("latin-1"),
            "a.json: is not JSON: it is no text in UTF-8 or UTF-16; save it",
        ),
        (_content(categories=[{"id": 1, "name": "\ud800"}]), r"categories: the name '\\ud800' has a lone surrogate"),
        (_content(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "categories: duplicate id 1"),
        (
            _content(images=[{"id": 4, "file_name": "a.jpg"}, {"id": 4, "file_name": "sub/b.jpg"}]),
            "1 duplicate image ids, such as 4, of different files; renumber the images of merged files",
        ),
        (
            _content(images=[{"id": 4, "file_name": "../../x.jpg"}]),
            "none of the 1 images can be used: 1 image names that lead out",
        ),
        (_content(images=[{"id": 4, "file_name": "none.jpg"}]), "test val: none of the 1 images can be used"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        _read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_names_that_the_file_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"names: 'dogs' is no category of .*a.json; did you mean 'dog'\?"):
        _read(tmp_path, _content(), names=("person", "dogs"))
    with pytest.raises(InputError, match="names: duplicate class in dog, dog"):
        _read(tmp_path, _content(), names=("dog", "dog"))


def test_a_class_that_the_file_does_not_list_has_no_objects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a val.json that was written without the classes that none of its images shows. Ids stay distinct."""
    with caplog.at_level("INFO", logger="detect"):
        table = _read(tmp_path, _content(), names=("zebra", "dog"))
    assert table.names == ("zebra", "dog")
    assert set(table.labels.tolist()) <= {1}
    assert len(set(table.category_ids.tolist())) == 2
    assert not table.problems.count(coco_annotations.UNKNOWN_CATEGORY)
    assert "'zebra' is no category of" in caplog.text
    assert "(classes without: 1 of 2)" in caplog.text
    with pytest.raises(InputError, match="names: 'zebra' is no category of"):
        _read(tmp_path, _content(), names=("zebra", "lion"))  # none of them is there
    with pytest.raises(InputError, match=r"names: 'Person' is no category of .*did you mean 'person'"):
        _read(tmp_path, _content(), names=("Person", "dog"))


def test_missing_annotation_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a.json: no such file; the data set's root .* has nothing"):
        coco.read_coco(_config(tmp_path), "val")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match=r"images: no such folder; the data set's root .* has a.json"):
        coco.read_coco(_config(tmp_path), "val")


def test_huge_files_are_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(coco_json.MAX_FILE_BYTES + 1)  # sparse: it takes no room
    with pytest.raises(InputError, match=r"a.json: has 2.0 GB; at most 2 GB is read"):
        coco.read_coco(_config(tmp_path), "val")


def _scores(annotations: dict[str, Any], detections: list[dict[str, Any]]) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([dict(d) for d in detections]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("split", [pytest.param("train", marks=pytest.mark.slow), "val"])
def test_pycocotools_scores_the_table_as_the_original_file(real_data: Path, split: str) -> None:
    root = real_data / "tiny_coco"
    splits = {split: SplitConfig(f"{split}2017", f"instances_{split}2017.json")}
    table = coco.read_coco(DataConfig("tiny", str(root), splits), split)
    assert not table.problems
    original = json.loads((root / f"instances_{split}2017.json").read_text())
    assert len(table) == len(original["images"]) == 50
    assert len(table.names) == 80
    rng = np.random.default_rng(0)
    detections = []
    for annotation in original["annotations"]:  # some near their object, some anywhere, some of another class
        box = np.array(annotation["bbox"]) + rng.normal(0, rng.choice([0, 2, 30]), size=4)
        category_id = annotation["category_id"] if rng.random() < 0.8 else int(rng.choice(table.category_ids))
        found = {"image_id": annotation["image_id"], "category_id": category_id}
        detections.append({**found, "bbox": np.maximum(box, 1).tolist(), "score": float(rng.integers(1, 20)) / 20})
    expected = _scores(original, detections)
    assert expected[0] > 0.1
    assert np.array_equal(_scores(table.to_coco(), detections), expected)
    # To the last bit, which left + width - left would not give: both are in the file's order within an image.
    rank = {image["id"]: number for number, image in enumerate(original["images"])}
    ordered = sorted(original["annotations"], key=lambda annotation: rank[annotation["image_id"]])
    assert [a["bbox"] for a in table.to_coco()["annotations"]] == [a["bbox"] for a in ordered]


@pytest.mark.parametrize(
    ("split", "num_images", "num_boxes"),
    [pytest.param("train", 850, 5827, marks=pytest.mark.slow), ("val", 150, 1046)],
)
def test_deeppcb(real_data: Path, split: str, num_images: int, num_boxes: int) -> None:
    config = DataConfig(
        "deeppcb", str(real_data / "deeppcb"), {split: SplitConfig("images", f"instances_{split}.json")}
    )
    table = coco.read_coco(config, split)
    assert (len(table), len(table.labels)) == (num_images, num_boxes)
    assert table.names == ("open", "short", "mousebite", "spur", "copper", "pin-hole")
    assert not table.problems
