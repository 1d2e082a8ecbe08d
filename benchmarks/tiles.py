"""Large images of small objects with their ground truth: the images of a split, pasted onto grey boards.

python benchmarks/tiles.py --data deeppcb --split val --out runs/boards [--data-root DIR] [--board 4000 3000]

Writes a data set in COCO's format, on which tools/evaluate.py --tile measures what tiles are worth. Boards are filled
one after the other; the last may have room left.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from detect.cli.parser import positive_int
from detect.data.annotations import AnnotationTable
from detect.data.datasets import open_split
from detect.data.detection.images import read_original
from detect.data.images import write_image
from detect.data.letterbox import PAD_VALUE
from detect.data.recognition import open_data
from detect.errors import InputError
from detect.runtime.cli import run_tool
from detect.runtime.files import write_json, write_text

CONFIG = "name: boards\nroot: .\nsplits:\n  val: {images: images, annotations: val.json}\n"


def even_starts(board: int, piece: int) -> np.ndarray:
    """Starts of as many pieces as fit along a side of a board, with even gaps around them; all in pixels."""
    count = board // piece
    if not count:
        raise InputError(f"--board: an image of {piece} pixels has no room on {board}")
    gap = (board - count * piece) / (count + 1)
    return (gap + np.arange(count) * (piece + gap)).round().astype(int)


def make_board(
    table: AnnotationTable, rows: range, places_xy: list[tuple[int, int]], board_hw: tuple[int, int]
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """A board (H, W, 3) uint8 with some images of a table, left and top of each, and COCO's annotations of it."""
    board = np.full((*board_hw, 3), PAD_VALUE, dtype=np.uint8)
    annotations: list[dict[str, Any]] = []
    for row, (left, top) in zip(rows, places_xy, strict=False):
        image = read_original(table, row)
        board[top : top + image.shape[0], left : left + image.shape[1]] = image
        boxes, labels, is_crowd = table.boxes(row)
        areas = table.areas[table.box_offsets[row] : table.box_offsets[row + 1]]
        for (x1, y1, x2, y2), label, crowd, area in zip(boxes.tolist(), labels, is_crowd, areas.tolist(), strict=True):
            box = [x1 + left, y1 + top, x2 - x1, y2 - y1]
            category_id = int(table.category_ids[label])
            annotations.append({"category_id": category_id, "bbox": box, "area": area, "iscrowd": int(crowd)})
    return board, annotations


def write_boards(table: AnnotationTable, board_hw: tuple[int, int], out: Path) -> int:
    """Write the data set to ``out``; gives the number of boards."""
    piece_height, piece_width = table.sizes_hw.max(axis=0).tolist()
    lefts, tops = even_starts(board_hw[1], piece_width), even_starts(board_hw[0], piece_height)
    places_xy = [(left, top) for top in tops.tolist() for left in lefts.tolist()]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, start in enumerate(range(0, len(table), len(places_xy)), start=1):
        rows = range(start, min(start + len(places_xy), len(table)))
        board, found = make_board(table, rows, places_xy, board_hw)
        name = f"board-{number}.png"
        write_image(out / "images" / name, board)
        images.append({"id": number, "file_name": name, "height": board_hw[0], "width": board_hw[1]})
        annotations += [{"id": len(annotations) + i, "image_id": number, **one} for i, one in enumerate(found, start=1)]
    ids = table.category_ids.tolist()
    categories = [{"id": number, "name": name} for number, name in zip(ids, table.names, strict=True)]
    write_json(out / "val.json", {"images": images, "annotations": annotations, "categories": categories}, indent=None)
    write_text(out / "data.yaml", CONFIG)
    return len(images)


def main() -> None:
    """Write the boards and say where they are."""
    parser = argparse.ArgumentParser(description="paste the images of a split onto large boards")
    parser.add_argument("--data", required=True, metavar="FILE", help="a data config, or its name in configs/data")
    parser.add_argument("--data-root", metavar="DIR", help="the data set's folder")
    parser.add_argument("--split", default="val", help="split of the data config (default: val)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the data set goes")
    parser.add_argument("--board", nargs=2, type=positive_int, default=(4000, 3000), metavar=("W", "H"))
    arguments = parser.parse_args()
    width, height = arguments.board
    table = open_split(open_data(arguments.data, arguments.data_root), arguments.split, strict=True)
    count = write_boards(table, (height, width), arguments.out)
    print(
        f"{count} boards of {width} x {height} pixels with {len(table.labels)} objects: {arguments.out / 'data.yaml'}"
    )


if __name__ == "__main__":
    run_tool(main)
