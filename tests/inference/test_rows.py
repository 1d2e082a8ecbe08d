from __future__ import annotations

import csv
import json
import os
from dataclasses import replace

import numpy as np
import pytest

from detect.inference.rows import COLUMNS, csv_table, json_array, to_entries, to_txt
from tests.inference.samples import FOUND, make_detections, seen, seen_frame


def test_entries_have_the_box_twice():
    assert to_entries(seen("a.jpg", make_detections([]))) == []
    assert to_entries(seen("x/a.jpg"))[0] == {
        "file_name": "x/a.jpg",
        "category": "dog",
        "label": 1,
        "score": 0.875,
        "bbox": [20.0, 10.0, 40.0, 40.0],
        "xyxy": [20.0, 10.0, 60.0, 50.0],
    }


def test_entries_of_a_video_have_frame_time_and_object():
    tracked = replace(FOUND, track_ids=np.array([4, -1]))
    first, second = to_entries(seen_frame("a.mp4", 3, tracked))
    assert (first["file_name"], first["frame"], first["time"], first["track_id"]) == ("a.mp4", 3, 0.3, 4)
    assert second["track_id"] is None


def test_txt_lines_are_shares_of_the_image():
    # Box 20..60 x 10..50 of 200 x 100: centre (40, 30), size 40 x 40.
    assert to_txt(make_detections([])) == ""
    assert to_txt(FOUND).splitlines()[0] == "1 0.200000 0.300000 0.200000 0.400000 0.87500"


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def write(table, path, entries):
    with table(path) as add:
        for entry in entries:
            add(entry)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_json_of_so_many(tmp_path, count):
    write(json_array, tmp_path / "a.json", to_entries(seen("a.jpg"))[:count])
    assert json.loads((tmp_path / "a.json").read_text()) == to_entries(seen("a.jpg"))[:count]


def test_csv_rows(tmp_path):
    write(csv_table, tmp_path / "a.csv", [])
    assert rows_of(tmp_path / "a.csv") == [list(COLUMNS)]
    tracked = replace(FOUND, track_ids=np.array([4, -1]))
    write(csv_table, tmp_path / "a.csv", [*to_entries(seen("a.jpg")), *to_entries(seen_frame("a.mp4", 3, tracked))])
    assert rows_of(tmp_path / "a.csv")[1:] == [
        ["a.jpg", "", "", "", "dog", "1", "0.875", "20.0", "10.0", "60.0", "50.0"],
        ["a.jpg", "", "", "", "cat", "0", "0.5", "100.25", "0.0", "200.0", "100.0"],
        ["a.mp4", "3", "0.3", "4", "dog", "1", "0.875", "20.0", "10.0", "60.0", "50.0"],
        ["a.mp4", "3", "0.3", "", "cat", "0", "0.5", "100.25", "0.0", "200.0", "100.0"],
    ]


@pytest.mark.parametrize(
    ("name", "in_csv"),
    [
        ("a,b.jpg", "a,b.jpg"),
        ('say "hi"; \\.jpg', 'say "hi"; \\.jpg'),
        ("two\nlines\r\n.jpg", "two\nlines\r\n.jpg"),
        ("猫.jpg", "猫.jpg"),
        ("=1+1.jpg", f".{os.sep}=1+1.jpg"),
        ("@x", f".{os.sep}@x"),
        ("-x", f".{os.sep}-x"),
        ("\tx", f".{os.sep}\tx"),
        (os.fsdecode(b"\xff.jpg"), "\\udcff.jpg"),
    ],
)
def test_hostile_names(tmp_path, name, in_csv):
    entries = to_entries(seen(name, make_detections([(0, 1, 2, 3, 4, 0.5)], names=("=cmd|'/c calc'!A1",))))
    write(csv_table, tmp_path / "a.csv", entries)
    (row,) = rows_of(tmp_path / "a.csv")[1:]
    assert (row[0], row[4]) == (in_csv, "'=cmd|'/c calc'!A1")
    assert row[5:] == ["0", "0.5", "1.0", "2.0", "3.0", "4.0"]
    write(json_array, tmp_path / "a.json", entries)
    (entry,) = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert os.fsencode(entry["file_name"]) == os.fsencode(name)
    assert entry["category"] == "=cmd|'/c calc'!A1"
