from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.curation.split import Division, count_boxes, split_data
from detect.data.recognition import open_data
from detect.errors import InputError
from tests.curation.tables import annotation, make_coco, opened, read, rich_content


def _split(source: str | Path, out: Path, *ratios: float, **more: Any) -> list[str]:
    return split_data(opened(source), Division("train", ratios, out, **more))


def _many(num_images: int) -> dict[str, Any]:
    """Every image with one car, every tenth with a bus; ids with gaps."""
    images = [{"id": 3 * number, "file_name": f"{number}.png", "note": number} for number in range(num_images)]
    cars = [annotation(7 * number + 1, 3 * number, 4, [1, 1, 3, 3]) for number in range(num_images)]
    buses = [annotation(7 * number + 2, 3 * number, 9, [5, 5, 3, 3]) for number in range(0, num_images, 10)]
    return {
        "info": {"year": 1},
        "images": images,
        "categories": [{"id": 4, "name": "car"}, {"id": 9, "name": "bus"}],
        "annotations": [*cars, *buses],
    }


def test_every_image_once_with_its_own_entries(tmp_path: Path) -> None:
    content = _many(30)
    report = _split(make_coco(tmp_path / "in", content), tmp_path / "out", 0.6, 0.2, 0.2)
    parts = [json.loads((tmp_path / f"out/{part}.json").read_text()) for part in ("train", "val", "test")]
    images = [image for part in parts for image in part["images"]]
    size = {"width": 40, "height": 30}
    assert sorted(images, key=lambda image: image["id"]) == [image | size for image in content["images"]]
    boxes = sorted((one for part in parts for one in part["annotations"]), key=lambda one: one["id"])
    assert boxes == sorted(({**one, "area": 9.0} for one in content["annotations"]), key=lambda one: one["id"])
    assert all(part["info"] == {"year": 1} and part["categories"] == content["categories"] for part in parts)
    # Cars 18, 6, 6; of the three buses one in each part.
    config = opened(tmp_path / "out")
    tables = [read(tmp_path / "out", part) for part in config.splits]
    assert [count_boxes(table).sum(axis=0).tolist() for table in tables] == [[18, 1], [6, 1], [6, 1]]
    assert [len(table) for table in tables] == [18, 6, 6]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"train.json", "val.json", "test.json", "data.yaml"}
    assert report[0] == "in train: 30 images in 30 groups, seed 0"


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    source = make_coco(tmp_path / "in", _many(40))
    for out, seed in (("a", 5), ("b", 5), ("c", 6)):
        _split(source, tmp_path / out, 0.5, 0.5, seed=seed)
    first, again, other = ((tmp_path / out / "train.json").read_bytes() for out in "abc")
    assert first == again
    assert first != other
    assert [*opened(tmp_path / "a").splits] == ["train", "val"]


def test_copies_of_an_image_stay_together(tmp_path: Path) -> None:
    content = _many(20)
    source = make_coco(tmp_path / "in", content)
    for number in range(1, 20, 2):
        (tmp_path / f"in/train/{number}.png").write_bytes((tmp_path / f"in/train/{number - 1}.png").read_bytes())
    report = _split(source, tmp_path / "out", 0.5, 0.3, 0.2)
    assert "20 images in 10 groups" in report[0]
    for part in ("train", "val", "test"):
        table = read(tmp_path / "out", part)
        numbers = sorted(int(table.path(row).stem) for row in range(len(table)))
        assert numbers[::2] == [number - 1 for number in numbers[1::2]]


def test_groups_by_name(tmp_path: Path) -> None:
    content = _many(20)
    report = _split(make_coco(tmp_path / "in", content), tmp_path / "out", 0.5, 0.5, group=r"\d(?=\.)")
    assert "20 images in 10 groups" in report[0]
    numbers = {int(read(tmp_path / "out").path(row).stem) % 10 for row in range(10)}
    assert len(numbers) == 5  # 3 and 13 go together


@pytest.mark.slow
def test_a_data_set_of_another_format(real_data: Path, tmp_path: Path) -> None:
    config = open_data("bccd", str(real_data / "bccd"))
    split_data(config, Division("train", (0.8, 0.1, 0.1), tmp_path / "out"))
    counts = np.array([count_boxes(read(tmp_path / "out", part)).sum(axis=0) for part in ("train", "val", "test")])
    assert counts.sum() == 2804
    # Classes of 2,381, 214 and 209 boxes: all shares within a point of what was asked for.
    assert np.abs(counts / counts.sum(axis=0) - np.array([[0.8], [0.1], [0.1]])).max() < 0.01
    assert read(tmp_path / "out").names == ("RBC", "WBC", "Platelets")


@pytest.mark.parametrize(
    ("ratios", "more", "message"),
    [
        ((0.5, 0.6), {}, r"--ratios 0.5 0.6: must be two or three numbers above 0 that sum to 1 \(train, val, test\)"),
        ((1.0,), {}, "--ratios 1: must be two or three"),
        ((0.5, 0.5, 0.0), {}, "--ratios 0.5 0.5 0: must be two or three"),
        ((float("nan"), 0.5), {}, "--ratios nan 0.5: must be two or three"),
        ((0.25, 0.25, 0.25, 0.25), {}, "must be two or three"),
        ((0.5, 0.5), {"group": "("}, r"--group '\(': is not a regular expression"),
        (
            (0.98, 0.01, 0.01),
            {"group": "."},
            "1 groups of images are too few for these ratios: val, test would be empty",
        ),
        ((0.5, 0.5), {"strict": True}, "refused, because --strict"),
    ],
)
def test_what_is_refused(tmp_path: Path, ratios: tuple[float, ...], more: dict[str, Any], message: str) -> None:
    content = rich_content()
    for number, image in enumerate(content["images"]):
        image["file_name"] = f"a{number}.png"
    source = make_coco(tmp_path / "in", content)
    with pytest.raises(InputError, match=message):
        _split(source, tmp_path / "out", *ratios, **more)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
