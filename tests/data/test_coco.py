from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detect.config.schema import DataConfig, SplitConfig
from detect.data import coco
from detect.data.annotations import AnnotationTable
from detect.data.checks import BAD_IMAGE, NO_AREA, NOT_FINITE, OUTSIDE, REPEATED, SHARED_FILE, WRONG_SIZE
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
        _box(1, [3, 3, 2, 2]),  # the id stands before
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
        coco.ZERO_ID: 1,
        coco.REPEATED_ID: 1,
        coco.UNKNOWN_IMAGE: 2,
        coco.UNKNOWN_CATEGORY: 1,
        coco.BAD_ANNOTATION: 4,
        coco.BAD_AREA: 2,
        NO_AREA: 1,
        OUTSIDE: 1,
        NOT_FINITE: 2,
        REPEATED: 1,
    }
    assert {kind: table.problems.count(kind) for kind in counts} == counts
    assert len(table.problems.summary()) == len(counts)
    assert table.boxes(0)[0][:, 0].tolist() == [1, 1, 3, 6, 7]
    assert table.areas.tolist() == [1, 1, 1, 9, 9]
    assert [a["id"] for a in table.to_coco()["annotations"]] == [1, 2, 3, 4, 5]


def test_bad_images_are_skipped_with_their_boxes(tmp_path: Path) -> None:
    images = [
        {"id": 1, "file_name": "missing.jpg", "width": 40, "height": 30},
        {"id": 2, "file_name": "sub/b.jpg", "width": 41, "height": 30},
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
    assert table.image_ids.tolist() == [5, 6]
    assert table.box_offsets.tolist() == [0, 0, 1]
    assert table.boxes(1)[0].tolist() == [[5, 6, 12, 14]]
    counts = {BAD_IMAGE: 1, WRONG_SIZE: 1, SHARED_FILE: 1, coco.BAD_IMAGE_ENTRY: 3}
    assert {kind: table.problems.count(kind) for kind in counts} == counts
    assert len(table.problems.summary()) == len(counts)


def test_categories_that_share_a_name_stay_apart(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "cell"}, {"id": 1, "name": "cell"}, {"id": 2, "name": "dust"}]
    annotations = [_box(1, [1, 2, 3, 4], category_id=1)]
    table = _read(tmp_path, _content(categories=categories, annotations=annotations))
    assert table.names == ("cell", "cell", "dust")
    assert table.problems.count(coco.SHARED_NAME) == 1
    with pytest.raises(InputError, match="names: 'cell' is the name of several categories"):
        _read(tmp_path, _content(categories=categories, annotations=annotations), names=("cell",))


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
        (_content(images=[{"file_name": "a.jpg"}]), "no entry of 'images' has a whole-number id and a file_name"),
        (_content(categories=[]), "categories: is empty"),
        (_content(categories=[{"id": "1", "name": "a"}]), "categories: .* has no whole-number id or no name"),
        (_content(categories=[{"id": 1}]), "categories: .* has no whole-number id or no name"),
        (_content(categories=[{"id": 1, "name": "\ud800"}]), r"categories: the name '\\ud800' has half a character"),
        (_content(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "categories: id 1 stands twice"),
        (_content(images=[{"id": 4, "file_name": "a.jpg"}] * 2), "1 image ids stand twice, such as 4"),
        (_content(images=[{"id": 4, "file_name": "../../x.jpg"}]), "leads out of the images' folder"),
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
    with pytest.raises(InputError, match="names: a class stands twice in dog, dog"):
        _read(tmp_path, _content(), names=("dog", "dog"))


def test_a_class_that_the_file_does_not_list_has_no_objects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a val.json that was written without the classes that none of its images shows. Ids stay distinct."""
    with caplog.at_level("INFO", logger="detect"):
        table = _read(tmp_path, _content(), names=("zebra", "dog"))
    assert table.names == ("zebra", "dog")
    assert set(table.labels.tolist()) <= {1}
    assert len(set(table.category_ids.tolist())) == 2
    assert not table.problems.count(coco.UNKNOWN_CATEGORY)
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
        file.truncate(coco.MAX_FILE_BYTES + 1)  # sparse: it takes no room
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


@pytest.mark.parametrize("split", ["train", "val"])
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


@pytest.mark.parametrize(("split", "num_images", "num_boxes"), [("train", 850, 5827), ("val", 150, 1046)])
def test_deeppcb(real_data: Path, split: str, num_images: int, num_boxes: int) -> None:
    config = DataConfig(
        "deeppcb", str(real_data / "deeppcb"), {split: SplitConfig("images", f"instances_{split}.json")}
    )
    table = coco.read_coco(config, split)
    assert (len(table), len(table.labels)) == (num_images, num_boxes)
    assert table.names == ("open", "short", "mousebite", "spur", "copper", "pin-hole")
    assert not table.problems
