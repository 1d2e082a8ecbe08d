"""Data sets in tar files (shards) of images and annotations in WebDataset's layout, with random access.

A data set larger than a disk lies on a network store as some hundred large files instead of millions of small ones.
Mosaics and the training order, which is the same for any number of processes, need images in any order, so each is read
in place (``detect.data.formats.shard_images``).

Letters: N images, m boxes of one image, K classes.
"""

from __future__ import annotations

import dataclasses
import glob
import itertools
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import AnnotationTable, Problems
from detect.data.checks import compare_sizes
from detect.data.formats.coco import ListedImages, coco_table, read_categories
from detect.data.formats.coco_annotations import Key, format_id, id_key, is_whole
from detect.data.formats.coco_json import read_json
from detect.data.formats.layouts import sorted_splits
from detect.data.formats.shard_images import ShardImages
from detect.data.formats.shard_index import MAX_JSON_BYTES, Shard, ShardSample, open_index
from detect.data.formats.writing import RENAMED_IMAGE
from detect.data.images import IMAGE_SUFFIXES
from detect.errors import InputError
from detect.runtime.distributed import main_process_first
from detect.runtime.files import atomic_path, write_json

DATASET_FILE = "dataset.json"
"""A file beside the shards with ``categories`` and the names of all ``shards``."""

MISSING_SHARD = f"shards that {DATASET_FILE} lists and that are not there (skipped)"
NO_JSON = "images of shards without a .json beside them (skipped)"
BAD_ANNOTATIONS = "images of shards whose JSON has annotations that are no list (skipped)"
REPEATED_NAME = "images whose name several shards have (kept)"
REPEATED_ID = "images with a duplicate id (all are renumbered)"

MAX_SHARDS = 100_000
IMAGES_PER_SHARD = 10_000
MAX_SHARD_BYTES = 2**29  # few files to open, and a damaged one is soon copied again

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_STEM = re.compile(r"[A-Za-z0-9_-]{1,80}")
_SPLIT = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SHARD_FILE = re.compile(r"(.+)-\d+\.tar")


def read_shards(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split.

    Beside ``KEY.jpg`` (or another image) is ``KEY.json``: ``annotations``, entries of COCO without ``image_id``, with
    the name ``category`` or ``category_id``; and optionally ``id``, ``width`` and ``height`` of the image. Categories
    are in ``dataset.json`` beside the shards, or are ``config.names``. A split in which no image has annotations was
    published without. Damaged data is skipped and counted in the table's ``problems``.

    Args:
        config: the data set.
        split: a key of ``config.splits``.

    Raises:
        InputError: there are no shards, a shard is compressed, the classes are unknown, or no image can be used.
    """
    problems = Problems()
    files = find_shards(config, split)
    title = f"{config.name} {split}"
    with main_process_first():  # one process reads the shards, the others its index
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
    """Find the tar files of a split, sorted by name.

    ``images`` of the split is a pattern (``train-*.tar``), or has numbers in braces (``train-{000000..000119}.tar``),
    and then all files must exist.

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
    """Return all names of a pattern with numbers in braces, which keep their leading zeros."""
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
    """Return a mapping with COCO's ``categories``, of ``dataset.json`` or the data config's names; count missing
    shards.
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
    if path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"{path}: is larger than {MAX_JSON_BYTES // 2**20} MiB")
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("categories"), list):
        raise InputError(f"{path}: must be a mapping with a list of categories")
    if not isinstance(content.get("shards", []), list):
        raise InputError(f"{path}: shards: must be a list of names")
    return content


# --------------------------------------------------------------------------------------------- images


def _usable(files: Sequence[Path], shards: Sequence[Shard], problems: Problems) -> tuple[list[int], list[ShardSample]]:
    """Return the images and the numbers of their shards; in a split with annotations, only images that have a list."""
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
    """Return height and width of the JSON; 0 where it has none."""
    sides = (_document(sample).get(side) for side in ("height", "width"))
    return [int(value) if is_whole(value) else 0 for value in sides]


def _ids(samples: Sequence[ShardSample], problems: Problems) -> tuple[list[Key], bool]:
    """Return N ids, and whether they are the images' own: all images have one, and all are distinct."""
    numbers: list[Key] = list(range(1, len(samples) + 1))
    ids = [key for sample in samples if (key := id_key(_document(sample).get("id"))) is not None]
    if len(ids) < len(samples):
        return numbers, False
    repeated = [key for key, count in Counter(ids).items() if count > 1]
    for key in repeated:
        problems.add(REPEATED_ID, format_id(key))
    return (numbers, False) if repeated else (ids, True)


def _content(samples: Sequence[ShardSample], ids: Sequence[Key], by_name: dict[str, int]) -> dict[str, Any]:
    """Return COCO's ``annotations`` of all images, with ids for names by ``by_name``; nothing without any list."""
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


# ------------------------------------------------------------------------------------------------- writing


def write_shards(
    tables: Mapping[str, AnnotationTable],
    out: Path,
    *,
    images_per_shard: int = IMAGES_PER_SHARD,
    max_bytes: int = MAX_SHARD_BYTES,
) -> dict[str, str]:
    """Write splits as ``SPLIT-000000.tar`` and so on, with copies of the image files.

    ``dataset.json`` is written last and marks the data set as complete. All tables have the same classes. The images of
    a shard have ``max_bytes`` at most, unless a single one has more.

    Returns:
        The pattern of each split, for ``images`` in a data config.

    Raises:
        InputError: the folder has shards, the classes differ, a split's name cannot begin a file name, or an image
            cannot be read.
    """
    _check(tables, out, images_per_shard, max_bytes)
    shards: list[str] = []
    for split, original in tables.items():
        table = dataclasses.replace(original, boxes_xywh_px=original.exact_xywh_px)  # computed once, not per image
        for number, rows in enumerate(_divide(table, images_per_shard, max_bytes)):
            shards.append(f"{split}-{number:06d}.tar")
            _write_shard(out / shards[-1], table, rows)
    first = next(iter(tables.values()))
    categories = [
        {"id": number, "name": name} for number, name in zip(first.category_ids_of_file, first.names, strict=True)
    ]
    write_json(out / DATASET_FILE, {"categories": categories, "shards": shards})
    return {split: f"{split}-[0-9]*.tar" for split in tables}  # not those of test-dev for test


def _check(tables: Mapping[str, AnnotationTable], out: Path, images_per_shard: int, max_bytes: int) -> None:
    if images_per_shard < 1 or max_bytes < 1:
        raise InputError(f"shards: must hold at least 1 image and 1 byte, found {images_per_shard} and {max_bytes}")
    if not tables or not all(len(table) for table in tables.values()):
        raise InputError("shards: there are no images to write")
    first, *others = tables.values()
    if any(other.names != first.names or (other.category_ids != first.category_ids).any() for other in others):
        raise InputError(f"shards: {', '.join(tables)} have different classes; list the same ones under names")
    for split in tables:
        if not _SPLIT.fullmatch(split):
            raise InputError(f"split {split!r}: must have 1 to 40 letters, digits, _ and - to begin file names")
        for other in tables:
            if re.fullmatch(rf"{split}-\d.*", other):  # the pattern would match its shards, too
                raise InputError(f"split {other!r}: would be taken for shards of {split!r}; rename it")
    there = sorted(path.name for path in out.glob("*.tar")) if out.is_dir() else []
    if there or (out / DATASET_FILE).exists():
        raise InputError(f"{out}: has {(there or [DATASET_FILE])[0]} already; name a folder without shards")


def _divide(table: AnnotationTable, images_per_shard: int, max_bytes: int) -> Iterator[list[tuple[int, str]]]:
    """Yield the rows of each shard with their keys."""
    rows: list[tuple[int, str]] = []
    size = 0
    for row, key in enumerate(_keys(table)):
        own = table.num_bytes(row)
        if rows and (len(rows) == images_per_shard or size + own > max_bytes):
            yield rows
            rows, size = [], 0
        rows.append((row, key))
        size += own
    yield rows


def report_renamed(table: AnnotationTable, names: Sequence[str], losses: Problems) -> None:
    """Count the images whose key in the shards is another name; their JSON keeps the old one, without folders."""
    for key, name in zip(_keys(table), names, strict=True):
        if key != name.rpartition(".")[0]:
            losses.add(RENAMED_IMAGE, f"{name[:100]!r} is {key!r}")


def _keys(table: AnnotationTable) -> list[str]:
    """Return the stems of the N images if they are valid keys and distinct; else numbers."""
    stems = [table.path(row).stem for row in range(len(table))]
    if all(_STEM.fullmatch(stem) for stem in stems) and len({stem.casefold() for stem in stems}) == len(stems):
        return stems
    return [f"{row:09d}" for row in range(len(table))]


def _write_shard(path: Path, table: AnnotationTable, rows: list[tuple[int, str]]) -> None:
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
        for row, key in rows:
            suffix = table.path(row).suffix.lower()
            # The format is recognised by the content; a reader needs the suffix of some image.
            _add(archive, key + (suffix if suffix in IMAGE_SUFFIXES else ".jpg"), table.read_bytes(row))
            _add(archive, f"{key}.json", _written_document(table, row))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a member without date, owner and rights, so that the same data makes the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, BytesIO(content))


def _written_document(table: AnnotationTable, row: int) -> bytes:
    height, width = table.sizes_hw[row].tolist()
    document: dict[str, Any] = {"file_name": table.path(row).name, "width": width, "height": height}
    if table.has_own_ids:
        document["id"] = table.image_id_of_file(row)
    if table.is_labelled:
        document["annotations"] = _written_annotations(table, row)
    return json.dumps(document).encode("ascii")


def _written_annotations(table: AnnotationTable, row: int) -> list[dict[str, Any]]:
    """Return COCO's entries of the m boxes of an image."""
    here = slice(table.box_offsets[row], table.box_offsets[row + 1])
    category_ids = table.category_ids_of_file
    entries = [
        {"bbox": box, "category_id": category, "area": area, "iscrowd": int(is_crowd)}
        for box, category, area, is_crowd in zip(
            table.exact_xywh_px[here].tolist(),
            [category_ids[label] for label in table.labels[here].tolist()],
            table.areas[here].tolist(),
            table.is_crowd[here].tolist(),
            strict=True,
        )
    ]
    for mark, values in table.marks.items():
        for entry, value in zip(entries, values[here].tolist(), strict=True):
            entry[mark] = value
    return entries


# -------------------------------------------------------------------------------------------------- layout


def find_shard_splits(folder: Path) -> dict[str, SplitConfig]:
    """Find the splits of a folder of shards."""
    names = [found[1] for path in folder.glob("*.tar") if (found := _SHARD_FILE.fullmatch(path.name))]
    is_whole = (folder / DATASET_FILE).is_file()
    splits = {name: SplitConfig(f"{glob.escape(name)}-[0-9]*.tar") for name in names if is_whole}
    return sorted_splits(splits)
