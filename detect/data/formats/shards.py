"""Data sets in tar files (shards): images and annotations in WebDataset's layout, read at random.

A data set larger than a disk lies on a network store as some hundred large files instead of millions of small ones.
Mosaics and the training order, which is the same for any number of processes, need images in any order, so each is read
where it lies (``detect.data.formats.shard_images``).

Letters: N images, K classes.
"""

from __future__ import annotations

import dataclasses
import glob
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from detect.config.data import DataConfig
from detect.data.annotations import AnnotationTable, Problems
from detect.data.checks import compare_sizes
from detect.data.formats.coco import ListedImages, coco_table, is_whole, read_categories
from detect.data.formats.coco_ids import Key, id_key, shown_id
from detect.data.formats.shard_images import ShardImages
from detect.data.formats.shard_index import MAX_JSON_BYTES, Shard, ShardSample, open_index
from detect.errors import InputError
from detect.runtime.distributed import main_process_first

DATASET_FILE = "dataset.json"
"""Beside the shards: ``categories``, and the names of all ``shards``."""

MISSING_SHARD = f"shards that {DATASET_FILE} lists and that are not there (skipped)"
NO_JSON = "images of shards without a .json beside them (skipped)"
BAD_ANNOTATIONS = "images of shards whose JSON has annotations that are no list (skipped)"
REPEATED_NAME = "images whose name several shards have (kept)"
REPEATED_ID = "images whose id stands before (all are numbered anew)"

MAX_SHARDS = 100_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def read_shards(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split.

    Beside ``KEY.jpg`` (or another image) is ``KEY.json``: ``annotations``, entries as COCO has them without their
    ``image_id``, where the name ``category`` may stand for ``category_id``; and, if known, ``id``, ``width`` and
    ``height`` of the image. Categories are in ``dataset.json`` beside the shards, or are ``config.names``. A split in
    which no image has annotations was published without. What is damaged is skipped and counted in the table's
    ``problems``.

    Args:
        config: the data set.
        split: a key of ``config.splits``.

    Raises:
        InputError: there are no such shards, a shard is compressed, the classes are not known, or no image can be used.
    """
    problems = Problems()
    files = find_shards(config, split)
    title = f"{config.name} {split}"
    with main_process_first():  # of several processes one reads the shards, the others what it remembered
        shards = open_index(files, files[0].with_name(f"{re.sub(r'[^A-Za-z0-9_-]', '_', split)}.index.json"), title)
    for shard in shards:
        problems.merge(shard.problems)
    categories = _categories(config, split, files, problems)
    classes = read_categories(categories, config.names, files[0].with_name(DATASET_FILE), problems)
    numbers, samples = _usable(files, shards, problems)
    paths = [files[number] / sample.name for number, sample in zip(numbers, samples, strict=True)]
    for name, count in Counter(sample.name for sample in samples).items():
        if count > 1:
            problems.add(REPEATED_NAME, repr(name))
    declared_hw = np.array([_declared_hw(sample) for sample in samples], np.int64).reshape(-1, 2)
    headers = [sample.header for sample in samples]
    sizes_hw, is_good = compare_sizes(paths, headers, declared_hw, problems, title)
    keys, has_own_ids = _ids(samples, problems)
    content = _content(samples, keys, {entry["name"]: entry["id"] for entry in categories["categories"]})
    table = coco_table(content, classes, ListedImages(keys, paths, sizes_hw, is_good), problems)
    spans = np.array([(sample.offset, sample.size) for sample in samples], np.int64).reshape(-1, 2)
    images = ShardImages(files, np.array(numbers, np.int64), spans)
    return dataclasses.replace(table, has_own_ids=has_own_ids, positions=None, shards=images.select(is_good))


# --------------------------------------------------------------------------------------------- which files


def find_shards(config: DataConfig, split: str) -> list[Path]:
    """The tar files of a split, in the order of their names.

    ``images`` of the split is a pattern (``train-*.tar``), or has numbers in braces (``train-{000000..000119}.tar``),
    all of which must be there.

    Raises:
        InputError: there are none, or too many.
    """
    root, pattern = Path(config.root), config.splits[split].images
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; name the data set's with --data-root (data/README.md)")
    if _RANGE.search(pattern):
        files = [root / name for name in _expand(pattern)]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise InputError(f"{missing[0]}: no such file, nor {len(missing) - 1} others of {pattern}")
    else:
        files = [root / name for name in sorted(glob.glob(pattern, root_dir=root))]
    if not 0 < len(files) <= MAX_SHARDS:
        raise InputError(
            f"{root / pattern}: must be 1 to {MAX_SHARDS} tar files, such as train-*.tar; found {len(files)}"
        )
    return files


def _expand(pattern: str) -> list[str]:
    """All names of a pattern with numbers in braces, which keep their leading zeros."""
    pieces: list[Sequence[str]] = []
    count = 1
    for number, piece in enumerate(re.split(r"(\{\d+\.\.\d+\})", pattern)):
        if number % 2 == 0:
            pieces.append([piece])
            continue
        first, last = piece[1:-1].split("..")
        count *= max(0, int(last) - int(first) + 1)
        if not 0 < count <= MAX_SHARDS:
            raise InputError(f"images: {pattern!r} must name 1 to {MAX_SHARDS} files, the first number the smaller one")
        pieces.append([f"{value:0{len(first)}d}" for value in range(int(first), int(last) + 1)])
    return ["".join(parts) for parts in itertools.product(*pieces)]


# --------------------------------------------------------------------------------------------- classes


def _categories(config: DataConfig, split: str, files: Sequence[Path], problems: Problems) -> dict[str, Any]:
    """A mapping with COCO's ``categories``: ``dataset.json``, or the data config's names.

    Shards that the file lists and that are missing are counted.
    """
    path = files[0].with_name(DATASET_FILE)
    if not path.exists():
        if config.names is None:
            raise InputError(f"{path}: no such file, so the classes are not known; name them in the data config: names")
        return {"categories": [{"id": number, "name": name} for number, name in enumerate(config.names, start=1)]}
    content = _read_dataset(path)
    pattern, there = Path(config.splits[split].images).name, {file.name for file in files}
    for name in content.get("shards", []):
        if name not in there and fnmatch(str(name), pattern):
            problems.add(MISSING_SHARD, repr(name))
    return content


def _read_dataset(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"{path}: is larger than {MAX_JSON_BYTES // 2**20} MiB")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not JSON: not UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("categories"), list):
        raise InputError(f"{path}: must be a mapping with a list of categories")
    if not isinstance(content.get("shards", []), list):
        raise InputError(f"{path}: shards: must be a list of names")
    return content


# --------------------------------------------------------------------------------------------- images


def _usable(files: Sequence[Path], shards: Sequence[Shard], problems: Problems) -> tuple[list[int], list[ShardSample]]:
    """The images and the numbers of their shards; in a split with annotations, those that have some, be it none."""
    found = [(number, sample) for number, shard in enumerate(shards) for sample in shard.samples]
    if not found:
        reasons = "; ".join(problems.summary()) or "they have no images"
        raise InputError(f"{files[0]}: nothing can be used of {len(files)} shards: {reasons}")
    is_labelled = any(_annotations(sample) is not None for _, sample in found)
    kept = []
    for number, sample in found:
        annotations = _annotations(sample)
        if isinstance(annotations, list) or not is_labelled:
            kept.append((number, sample))
        else:
            kind = NO_JSON if annotations is None else BAD_ANNOTATIONS
            problems.add(kind, f"{sample.name!r} in {files[number].name}")
    return [number for number, _ in kept], [sample for _, sample in kept]


def _document(sample: ShardSample) -> dict[str, Any]:
    return sample.document or {}


def _annotations(sample: ShardSample) -> Any:
    return _document(sample).get("annotations")


def _declared_hw(sample: ShardSample) -> list[int]:
    """Height and width as the JSON says; 0 where it says nothing."""
    sides = (_document(sample).get(side) for side in ("height", "width"))
    return [int(value) if is_whole(value) else 0 for value in sides]


def _ids(samples: Sequence[ShardSample], problems: Problems) -> tuple[list[Key], bool]:
    """N ids, and whether they are the images' own: all have one, and no two the same."""
    numbers: list[Key] = list(range(1, len(samples) + 1))
    ids = [key for sample in samples if (key := id_key(_document(sample).get("id"))) is not None]
    if len(ids) < len(samples):
        return numbers, False
    repeated = [key for key, count in Counter(ids).items() if count > 1]
    for key in repeated:
        problems.add(REPEATED_ID, shown_id(key))
    return (numbers, False) if repeated else (ids, True)


def _content(samples: Sequence[ShardSample], ids: Sequence[Key], by_name: dict[str, int]) -> dict[str, Any]:
    """COCO's ``annotations`` of all images, in which ``by_name`` gives ids to names; none if no image has a list."""
    entries = []
    is_labelled = False
    for sample, image_id in zip(samples, ids, strict=True):
        annotations = _annotations(sample)
        if not isinstance(annotations, list):
            continue
        is_labelled = True
        for entry in annotations:
            if isinstance(entry, dict):
                name = entry.get("category")
                named = (
                    {"category_id": by_name.get(name)} if isinstance(name, str) and "category_id" not in entry else {}
                )
                entry = {**entry, "image_id": image_id, **named}
            entries.append(entry)
    return {"annotations": entries} if is_labelled else {}
