"""Time of reading images in random order, from a folder of files and from shards.

python benchmarks/shards.py --images FOLDER [--count 2000] [--rounds 5] [--place DIR]

The images are copied into both; ``--place`` says where, such as a folder on a network store. *Cold* is after
the system has been asked to forget the files' content, *known* right afterwards. Wall time, one process, no decoding:
what differs is finding and opening. Opening the split is timed without and with the index of an earlier opening.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from detect.cli.parser import positive_int
from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import AnnotationTable, encode_paths
from detect.data.formats.shards import read_shards, write_shards
from detect.data.images import IMAGE_SUFFIXES, read_header
from detect.errors import InputError
from detect.runtime.cli import run_tool


def table_of(paths: list[Path]) -> AnnotationTable:
    """A split of these images, without boxes."""
    return AnnotationTable(
        image_paths=encode_paths(paths),
        image_ids=np.arange(1, len(paths) + 1),
        has_own_ids=False,
        sizes_hw=np.array([read_header(path).size_hw for path in paths], np.int32),
        box_offsets=np.zeros(len(paths) + 1, np.int64),
        boxes_xyxy_px=np.zeros((0, 4)),
        labels=np.zeros(0, np.int64),
        is_crowd=np.zeros(0, bool),
        areas=np.zeros(0),
        names=("thing",),
        category_ids=np.array([1]),
    )


def copied(paths: list[Path], count: int, folder: Path) -> AnnotationTable:
    """A folder of ``count`` files: the images, again and again."""
    folder.mkdir()
    targets = [folder / f"{number:08d}{paths[number % len(paths)].suffix}" for number in range(count)]
    for number, target in enumerate(targets):
        target.write_bytes(paths[number % len(paths)].read_bytes())
    return table_of(targets)


def forget(files: set[Path]) -> None:
    """Ask the system to drop what it keeps of these files."""
    for path in files:
        number = os.open(path, os.O_RDONLY)
        os.fsync(number)
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(number)


def seconds_to_read(table: AnnotationTable, order: list[int]) -> float:
    """Of all images in this order."""
    start = time.perf_counter()
    for row in order:
        table.read_bytes(row)
    return time.perf_counter() - start


def seconds_to_open(config: DataConfig) -> tuple[float, AnnotationTable]:
    """Of the split, and the split."""
    start = time.perf_counter()
    table = read_shards(config, "train")
    return time.perf_counter() - start, table


def main() -> None:
    arguments = parse()
    paths = sorted(path for path in arguments.images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise InputError(f"{arguments.images}: has no images")
    with tempfile.TemporaryDirectory(dir=arguments.place) as name:
        root = Path(name)
        tables = {"folder": copied(paths, arguments.count, root / "images")}
        write_shards({"train": tables["folder"]}, root / "shards")
        config = DataConfig("images", str(root / "shards"), {"train": SplitConfig("train-*.tar")}, names=("thing",))
        (first, _), (again, tables["shards"]) = seconds_to_open(config), seconds_to_open(config)
        measure(tables, arguments.rounds)
    print(f"opening the shards: {first:.2f} s, with an index {again:.2f} s")


def measure(tables: dict[str, AnnotationTable], rounds: int) -> None:
    """Milliseconds of an image, the kinds in turn, the median of the rounds."""
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for kind, table in tables.items():
            order = np.random.default_rng(number).permutation(len(table)).tolist()
            forget({table.stored_in(row) for row in order})
            for state in ("cold", "known"):
                found.setdefault((kind, state), []).append(seconds_to_read(table, order) / len(order) * 1e3)
    size = sum(table.num_bytes(row) for table in tables.values() for row in range(len(table))) / len(tables) / 2**20
    print(f"{len(tables['folder'])} images, {size:.0f} MiB, ms of an image:")
    for (kind, state), values in found.items():
        print(f"  {kind}, {state}: {median(values):.3f} ({min(values):.3f} to {max(values):.3f})")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the reading of images from a folder and from shards.")
    parser.add_argument("--images", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--count", type=positive_int, default=2000, metavar="N")
    parser.add_argument("--rounds", type=positive_int, default=5, metavar="N")
    parser.add_argument("--place", type=Path, metavar="DIR", help="where both are written (default: the system's)")
    return parser.parse_args()


if __name__ == "__main__":
    run_tool(main)
