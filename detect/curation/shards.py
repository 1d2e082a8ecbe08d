"""A data set as tar files (shards) in WebDataset's layout, which ``detect.data.formats.shards`` reads.

Letters: N images, m boxes of one image.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from detect.boxes.convert import xyxy_to_xywh
from detect.curation.names import RENAMED_IMAGE
from detect.data.annotations import AnnotationTable, Problems
from detect.data.formats.shards import DATASET_FILE
from detect.data.images import IMAGE_SUFFIXES
from detect.errors import InputError
from detect.runtime.files import atomic_path, write_json

IMAGES_PER_SHARD = 10_000
MAX_SHARD_BYTES = 2**29
"""Large enough that few files are opened, small enough to be copied again when one is damaged."""

_STEM = re.compile(r"[A-Za-z0-9_-]{1,80}")
_SPLIT = re.compile(r"[A-Za-z0-9_-]{1,40}")


def write_shards(
    tables: Mapping[str, AnnotationTable],
    out: Path,
    *,
    images_per_shard: int = IMAGES_PER_SHARD,
    max_bytes: int = MAX_SHARD_BYTES,
) -> dict[str, str]:
    """Write splits as ``SPLIT-000000.tar`` and so on, with the images' files as they are, and last ``dataset.json``.

    Without the last one a data set is not complete: that is how an interrupted writing is seen.

    Args:
        tables: the splits, which have the same classes, by name.
        out: a folder without any of these files.
        images_per_shard: at most.
        max_bytes: of the images of a shard, unless a single one has more.

    Returns:
        The pattern of each split, for ``images`` in a data config.

    Raises:
        InputError: the folder has shards, the classes differ, a split's name cannot begin a file name, or an image
            cannot be read.
    """
    _check(tables, out, images_per_shard, max_bytes)
    shards: list[str] = []
    for split, table in tables.items():
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
    """Rows with their keys, shard by shard."""
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
    """Count the images that are called otherwise in shards; what they were called stays in their JSON, without folders.

    Args:
        table: the split.
        names: what its N images are called, with folders.
        losses: gets them.
    """
    for key, name in zip(_keys(table), names, strict=True):
        if key != name.rpartition(".")[0]:
            losses.add(RENAMED_IMAGE, f"{name[:100]!r} is {key!r}")


def _keys(table: AnnotationTable) -> list[str]:
    """The names of the N images without suffix, if they can be keys and are distinct; else numbers."""
    stems = [table.path(row).stem for row in range(len(table))]
    if all(_STEM.fullmatch(stem) for stem in stems) and len({stem.casefold() for stem in stems}) == len(stems):
        return stems
    return [f"{row:09d}" for row in range(len(table))]


def _write_shard(path: Path, table: AnnotationTable, rows: list[tuple[int, str]]) -> None:
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
        for row, key in rows:
            suffix = table.path(row).suffix.lower()
            # What an image is, is told by its content; a reader needs some suffix of one.
            _add(archive, key + (suffix if suffix in IMAGE_SUFFIXES else ".jpg"), table.read_bytes(row))
            _add(archive, f"{key}.json", _document(table, row))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """A member without date, owner and rights of this machine: the same data makes the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, BytesIO(content))


def _document(table: AnnotationTable, row: int) -> bytes:
    """What stands beside an image."""
    height, width = table.sizes_hw[row].tolist()
    document: dict[str, Any] = {"file_name": table.path(row).name, "width": width, "height": height}
    if table.has_own_ids:
        document["id"] = table.image_id_of_file(row)
    if table.is_labelled:
        document["annotations"] = _annotations(table, row)
    return json.dumps(document).encode("ascii")


def _annotations(table: AnnotationTable, row: int) -> list[dict[str, Any]]:
    """COCO's entries of the m boxes of an image."""
    here = slice(table.box_offsets[row], table.box_offsets[row + 1])
    if table.boxes_xywh_px is None:
        xywh = xyxy_to_xywh(table.boxes_xyxy_px[here]).tolist()
    else:
        xywh = table.boxes_xywh_px[here].tolist()
    category_ids = table.category_ids_of_file
    entries = [
        {"bbox": box, "category_id": category, "area": area, "iscrowd": int(is_crowd)}
        for box, category, area, is_crowd in zip(
            xywh,
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
