from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.config.data import DataConfig, SplitConfig
from detect.curation.review import COLUMNS, KINDS, find_disagreements, write_review
from detect.data.annotations import AnnotationTable
from detect.data.formats.yolo import read_yolo
from detect.data.images import read_image
from detect.evaluation.coco import FoundBoxes

NAMES = ("cat", "=dog", "cow")
ROWS = {
    # (class, left, top, width, height) in an image of 100 x 100 px
    "a": [(0, 10, 10, 20, 20), (0, 50, 10, 20, 20), (0, 10, 50, 20, 20), (0, 60, 60, 20, 20)],
    "b": [(2, 10, 10, 20, 20)],
    "c": [(0, 10, 10, 20, 20)],
}


def table_of(root: Path) -> AnnotationTable:
    for name, rows in ROWS.items():
        Image.new("RGB", (100, 100), "grey").save(root / f"{name}.png")
        lines = [f"{k} {(x + w / 2) / 100} {(y + h / 2) / 100} {w / 100} {h / 100}" for k, x, y, w, h in rows]
        (root / f"{name}.txt").write_text("\n".join(lines))
    return read_yolo(DataConfig("x", str(root), {"val": SplitConfig(".")}, names=NAMES), "val")


def found_of(*rows: tuple[int, int, float, float, float, float, float]) -> FoundBoxes:
    """Detections from (image, class, left, top, width, height, score), best first in an image."""
    values = np.array(rows, np.float64)
    return FoundBoxes(values[:, 0].astype(np.int64), values[:, 1].astype(np.int64), values[:, 2:6], values[:, 6])


FOUND = found_of(
    (0, 0, 30, 70, 10, 10, 0.95),  # nothing is there: a missing label
    (0, 0, 10, 10, 20, 20, 0.9),  # right
    (0, 1, 50, 10, 20, 20, 0.8),  # a dog where the label says cat
    (0, 0, 15, 50, 20, 20, 0.7),  # 15 x 20 of 25 x 20: IoU 0.6, loose although right
    (0, 0, 11, 11, 20, 20, 0.6),  # a second one of the first label: none of our business
    (0, 0, 60, 74, 20, 20, 0.55),  # 6 of 34: IoU 0.18, loose
    (0, 0, 80, 5, 5, 5, 0.4),  # too weak to say anything
    (1, 0, 40, 40, 10, 10, 0.3),
    (2, 0, 12, 12, 20, 20, 0.04),  # hardly a sign of the label
)


def test_kinds(tmp_path: Path) -> None:
    """Strengths: scores; of the loose ones 0.7 x 0.4 and 0.55 x (1 - 6 / 34); of the extra label 1 - 0.04 / 0.05."""
    places = find_disagreements(table_of(tmp_path), FOUND, 0.5, NAMES[:2])
    assert [(one.row, one.kind, one.label, one.predicted) for one in places] == [
        (0, "missing label", "", "cat"),
        (0, "wrong class", "cat", "=dog"),
        (0, "loose box", "cat", "cat"),
        (0, "loose box", "cat", "cat"),
        (2, "extra label", "cat", ""),  # the model does not know cows
    ]
    assert [one.strength for one in places] == pytest.approx([0.95, 0.8, 0.55 * 28 / 34, 0.28, 0.2], abs=1e-4)
    assert [one.iou for one in places] == pytest.approx([0, 1, 6 / 34, 0.6, 0], abs=1e-4)
    assert places[-1].box_xyxy_px == (10, 10, 30, 30)


def test_labels_of_all_known_classes_are_judged(tmp_path: Path) -> None:
    places = find_disagreements(table_of(tmp_path), FOUND, 0.5, NAMES)
    assert [(one.row, one.label, one.strength) for one in places if one.kind == "extra label"] == [
        (1, "cow", 1),
        (2, "cat", pytest.approx(0.2)),
    ]


def test_a_neighbour_of_a_label_that_was_found_is_missing(tmp_path: Path) -> None:
    """IoU 0.25 with a label that has a prediction of its own."""
    found = found_of((2, 0, 10, 10, 20, 20, 0.9), (2, 0, 22, 10, 20, 20, 0.8))
    places = [one for one in find_disagreements(table_of(tmp_path), found, 0.5, ()) if one.row == 2]
    assert [(one.kind, one.score) for one in places] == [("missing label", 0.8)]


def test_files(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    places = find_disagreements(table, FOUND, 0.5, NAMES)
    (tmp_path / "b.png").write_bytes(b"")  # was removed since
    lines = write_review(tmp_path / "out", table, places, 48)
    assert lines[0] == "6 disagreements in 3 of 3 images"
    assert [line.split(":")[0].split(maxsplit=1) for line in lines[1:5]] == [
        list(map(str, pair)) for pair in zip((1, 1, 2, 2), KINDS, strict=True)
    ]
    with (tmp_path / "out/review.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(COLUMNS)
    assert rows[2] == ["1", "a.png", "wrong class", "cat", "'=dog", "0.8", "1.0", "50.0", "10.0", "70.0", "30.0", "0.8"]
    records = json.loads((tmp_path / "out/review.json").read_text())
    assert (len(records), records[1]["predicted"]) == (6, "=dog")
    assert read_image(tmp_path / "out/sheet.jpg").shape[1] == 5 * 168 + 8  # five panels: one image cannot be read


def test_every_kind_has_its_share_of_the_sheet(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    places = find_disagreements(table, FOUND, 0.5, NAMES)
    write_review(tmp_path / "out", table, places, 4)
    assert read_image(tmp_path / "out/sheet.jpg").shape[1] == 4 * 168 + 8


def test_no_disagreement(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    rows = [(row, k, x, y, w, h, 0.9) for row, some in enumerate(ROWS.values()) for k, x, y, w, h in some]
    assert find_disagreements(table, found_of(*rows), 0.5, NAMES) == []
    assert write_review(tmp_path / "out", table, [], 48)[0] == "0 disagreements in 0 of 3 images"
