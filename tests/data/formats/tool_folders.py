"""Exports of labelling tools, made up after the tools' documentation, and what is read of them."""

from __future__ import annotations

from pathlib import Path

from detect.config.data import DataConfig
from detect.data.annotations import AnnotationTable
from detect.data.datasets import read_split
from detect.data.recognition import open_data

Found = dict[str, list[tuple[str, list[float]]]]


def tables_of(folder: Path) -> tuple[DataConfig, dict[str, AnnotationTable]]:
    """The splits of a folder, recognised without options."""
    config = open_data(str(folder))
    return config, {split: read_split(config, split) for split in config.splits}


def boxes_of(table: AnnotationTable, digits: int = 6) -> Found:
    """Class and box (left, top, right, bottom) of each image by its file name."""
    found = {}
    for row in range(len(table)):
        boxes, labels, _ = table.boxes(row)
        names = [table.names[label] for label in labels]
        found[table.path(row).name] = list(zip(names, boxes.round(digits).tolist(), strict=True))
    return found
