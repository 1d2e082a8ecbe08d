from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detect.curation.check.kinds import BACKGROUND, FIX, LEAK, mend_of
from detect.curation.check.run import check_data, check_json, check_text
from detect.curation.fix import Mending, fix_data
from detect.data.checks import NO_AREA
from detect.data.recognition import open_data
from detect.errors import InputError
from tests.data.formats.tool_folders import boxes_of, tables_of
from tests.data.layouts import write


def noise(path: Path, seed: int = 0) -> None:
    """An image of 40 x 30 px unlike others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)


def digest(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def coco(root: Path, *boxes: Any, **more: Any) -> Path:
    """A Roboflow export: a category 0 that only groups; image b has no file."""
    noise(root / "train" / "a.png")
    ids = (0, *range(2, 99))
    entries = [{"id": ids[i], "image_id": 5, "category_id": 1, "bbox": list(box)} for i, box in enumerate(boxes)]
    content = {
        "images": [{"id": 5, "file_name": "a.png", "width": 40, "height": 30}, {"id": 6, "file_name": "b.png"}],
        "categories": [
            {"id": 0, "name": "blobs", "supercategory": "none"},
            {"id": 1, "name": "cell", "supercategory": "blobs"},
        ],
        "annotations": [
            {**entry, "area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": 0, **more} for entry in entries
        ],
    }
    write(root, {"train/_annotations.coco.json": json.dumps(content)})
    return root


def test_coco(tmp_path: Path) -> None:
    """Clipped at the right and the bottom; a repeat, an empty box, one of less than a pixel and one outside go."""
    boxes = [
        (1, 2, 10, 12),
        (30, 20, 20, 20),
        (1, 2, 10, 12),
        (5, 5, 0, 3),
        (5, 5, 0.5, 3),
        (60, 5, 3, 3),
        (-0.5, 0, 4, 4),
    ]
    source = coco(tmp_path / "source", *boxes)
    before = digest(source)
    lines = fix_data(open_data(str(source)), Mending(tmp_path / "out", workers=0))
    assert digest(source) == before
    table = tables_of(tmp_path / "out")[1]["train"]
    assert boxes_of(table) == {"a.png": [("cell", box) for box in ([1, 2, 11, 14], [30, 20, 40, 30], [0, 0, 3.5, 4])]}
    assert table.areas.tolist() == [120, 100, 14]
    assert not table.problems
    config = open_data(str(tmp_path / "out"))
    assert check_data(config, ["train"], decode=True, workers=0).exit_code == 0
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [one["name"] for one in content["categories"]] == ["cell"]
    assert len({one["id"] for one in content["annotations"]} - {0}) == 3
    assert content["images"] == [{"id": 5, "file_name": "a.png", "width": 40, "height": 30}]
    assert "train          1       0  boxes of zero or negative size" in lines
    assert lines[-1] == "detect data check finds nothing more in the copy"


def test_yolo_keeps_its_format_and_damaged_pixels_go(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, seed in (("a.png", 1), ("b.png", 2)):
        noise(source / "images/train" / name, seed)
    damaged = (source / "images/train/b.png").read_bytes()
    (source / "images/train/b.png").write_bytes(damaged[:60] + b"\0" * (len(damaged) - 80) + damaged[-20:])
    write(
        source,
        {"labels/train/a.txt": "0 0.1 0.5 0.4 0.2\n7 0.5 0.5 x 1\n", "labels/train/b.txt": "0 0.5 0.5 0.1 0.1\n"},
    )
    write(source, {"labels/classes.txt": "cell\n"})
    fix_data(open_data(str(source)), Mending(tmp_path / "out", workers=0))
    config, tables = tables_of(tmp_path / "out")
    assert config.format == "yolo"
    assert boxes_of(tables["train"]) == {"a.png": [("cell", [0, 12, 12, 18])]}
    assert check_data(config, ["train"], decode=True, workers=0).exit_code == 0


def test_a_labelling_tool_becomes_coco(tmp_path: Path) -> None:
    source = tmp_path / "source"
    noise(source / "a.png")
    shapes = [{"label": "cell", "shape_type": "rectangle", "points": [[-5, 3], [7, 9]]}]
    content = {"shapes": shapes, "imagePath": "a.png", "imageHeight": 30, "imageWidth": 40}
    write(source, {"a.json": json.dumps(content)})
    fix_data(open_data(str(source)), Mending(tmp_path / "out", workers=0))
    config, tables = tables_of(tmp_path / "out")
    assert config.format == "coco"
    assert boxes_of(tables["train"]) == {"a.png": [("cell", [0, 3, 7, 9])]}


def test_what_is_not_certain_is_left_and_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for split in ("train", "val"):
        noise(source / f"images/{split}/{split}.png")
        write(source, {f"labels/{split}/{split}.txt": "0 0.5 0.5 0.1 0.1\n"})
    lines = fix_data(open_data(str(source)), Mending(tmp_path / "out", workers=0))
    assert "left to decide, because no mend is certain:" in lines
    assert lines[-1].startswith(
        "  val: 1 images that another split has, too (val.png is train.png of train): detect data split"
    )


def test_nothing_to_mend(tmp_path: Path) -> None:
    noise(tmp_path / "source/a.png")
    write(tmp_path / "source", {"a.txt": "0 0.5 0.5 0.1 0.1\n"})
    lines = fix_data(open_data(str(tmp_path / "source")), Mending(tmp_path / "out", workers=0))
    assert lines[-3:] == ["nothing to mend", "", "detect data check finds nothing more in the copy"]


def test_boxes_in_doubt_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    corners = [(20, 15, 35, 25), (5, 5, 30, 20), (10, 2, 39, 28), (12, 8, 38, 29), (21, 3, 30, 9)]
    source = coco(tmp_path / "source", *corners)
    with pytest.raises(
        InputError, match=r"source train: cannot be mended for certain: 5 boxes that read as \[left, top"
    ):
        fix_data(open_data(str(source)), Mending(tmp_path / "out", workers=0))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_occupied_folder_is_refused(tmp_path: Path) -> None:
    source = coco(tmp_path / "source", (1, 2, 10, 12))
    with pytest.raises(InputError, match="exists already and is not an empty folder"):
        fix_data(open_data(str(source)), Mending(source, workers=0))
    shutil.rmtree(source)


def test_a_check_says_the_mends(tmp_path: Path) -> None:
    assert (mend_of(NO_AREA), mend_of(BACKGROUND)) == (FIX, "")
    assert mend_of(LEAK).startswith("detect data split")
    report = check_data(open_data(str(coco(tmp_path, (5, 5, 0, 3), (1, 2, 3, 4)))), ["train"], decode=True, workers=0)
    lines = check_text(report).splitlines()
    assert f"  boxes of zero or negative size: {FIX}" in lines[lines.index("what mends them:") :]
    assert FIX in [finding["mend"] for finding in check_json(report)["findings"]]
