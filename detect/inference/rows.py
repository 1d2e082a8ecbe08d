"""Detections as rows: entries of a JSON array, rows of a CSV table, lines of a label file."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from detect.boxes.convert import xyxy_to_cxcywh, xyxy_to_xywh
from detect.drawing.text import FORMULA_START, spreadsheet_text
from detect.inference.stream import FoundFrame
from detect.runtime.files import atomic_path
from detect.structures import Detections

COLUMNS = (
    *("file_name", "frame", "time", "track_id", "category", "label", "score"),
    *("left", "top", "right", "bottom"),
)
"""Columns of the CSV table. The box is in original-image pixels; ``time`` is in seconds."""

LABEL_PLACES = {
    "coco": ("coco.json",),
    "yolo": ("labels/", "classes.txt"),
    "voc": ("voc/",),
    "cvat": ("cvat.xml",),
    "label-studio": ("label-studio.json",),
}
"""Files and folders of each form of labels below the folder of the results."""

Add = Callable[[dict[str, Any]], None]


def to_entries(found: FoundFrame) -> list[dict[str, Any]]:
    """Convert detections to JSON entries: like COCO's results, with the file and the class by name.

    Returns:
        ``file_name``; of a video ``frame``, its number from 0, and ``time`` in seconds; ``category`` (class name),
        ``label`` (class index), ``score``, and the box twice, in original-image pixels: ``bbox`` [x, y, width, height]
        as in COCO, and ``xyxy`` [left, top, right, bottom]; with tracking ``track_id``, None where it is not known.
    """
    detections = found.detections
    xyxy = detections.boxes_xyxy_px.astype(np.float64).round(2)
    xywh = xyxy_to_xywh(xyxy).round(2)
    scores = detections.scores.astype(np.float64).round(5)
    columns = zip(
        detections.class_names, detections.labels.tolist(), scores.tolist(), xywh.tolist(), xyxy.tolist(), strict=True
    )
    keys = ("category", "label", "score", "bbox", "xyxy")
    entries = [{**_place(found), **dict(zip(keys, values, strict=True))} for values in columns]
    if detections.track_ids is not None:
        for entry, track_id in zip(entries, detections.track_ids.tolist(), strict=True):
            entry["track_id"] = track_id if track_id > 0 else None
    return entries


def to_record(found: FoundFrame) -> dict[str, Any]:
    """Convert an image or frame to a JSON entry: file, number and time of a frame, ``detections`` of ``to_entries``."""
    place = _place(found)
    entries = to_entries(found)
    return {**place, "detections": [{key: entry[key] for key in entry if key not in place} for entry in entries]}


def to_txt(detections: Detections, has_scores: bool = True) -> str:
    """Convert to a line ``class cx cy w h [score]`` per detection, as shares of the image's width and height."""
    height, width = detections.image_hw
    shares = xyxy_to_cxcywh(detections.boxes_xyxy_px) / np.array([width, height, width, height])
    lines = [
        f"{label} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}" + f" {score:.5f}" * has_scores + "\n"
        for label, (cx, cy, w, h), score in zip(detections.labels, shares, detections.scores, strict=True)
    ]
    return "".join(lines)


@contextmanager
def json_array(path: Path) -> Iterator[Add]:
    """Write a JSON array entry by entry; the file is renamed to ``path`` when the block ends.

    Bytes of a file name that are no UTF-8 become escapes of lone surrogates, which ``os.fsencode`` turns back.

    Yields:
        A function that adds one entry.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        before = "[\n"

        def add(entry: dict[str, Any]) -> None:
            nonlocal before
            file.write(before + json.dumps(entry, allow_nan=False, ensure_ascii=False))
            before = ",\n"

        yield add
        file.write("[]\n" if before == "[\n" else "\n]\n")


@contextmanager
def csv_table(path: Path) -> Iterator[Add]:
    """Write a CSV file with ``COLUMNS`` (RFC 4180, UTF-8); it is renamed to ``path`` when the block ends.

    A spreadsheet runs a cell that starts like a formula. Such a file name is written ``./=...``, which is the same
    file; such a class name gets an apostrophe in front, and has its index beside it.

    Yields:
        A function that adds one of ``to_entries``.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        table.writeheader()

        def add(entry: dict[str, Any]) -> None:
            box = dict(zip(("left", "top", "right", "bottom"), entry["xyxy"], strict=True))
            name = entry["file_name"]
            safe = {
                "file_name": f".{os.sep}{name}" if name.startswith(FORMULA_START) else name,
                "category": spreadsheet_text(entry["category"]),
            }
            table.writerow({**entry, **safe, **box})

        yield add


def _place(found: FoundFrame) -> dict[str, Any]:
    if found.index is None or found.time_s is None:
        return {"file_name": found.source}
    return {"file_name": found.source, "frame": found.index, "time": round(found.time_s, 4)}
