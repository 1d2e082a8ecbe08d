"""What only shows when the splits of a data set are seen together: copies, other classes, files that no split uses."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from detect.config.data import DataConfig
from detect.curation.check.severity import DUPLICATE, LEAK, NEVER_TRAINED, OTHER_NAMES, UNLISTED
from detect.data.annotations import AnnotationTable, Problems
from detect.data.detection.box_sizes import is_trained_on
from detect.data.walking import NOT_READ, is_image_name, report_left_out

Key = bytes | str
"""What tells images apart: the digest of a file, or its path."""


def check_copies(
    tables: Mapping[str, AnnotationTable], digests: Mapping[str, list[bytes]], problems: Mapping[str, Problems]
) -> None:
    """Report images that stand twice, in a split or in two.

    Args:
        tables: split name to split.
        digests: split name to one digest of each image, empty for what could not be read; splits may be missing, then
            images are told apart by their paths.
        problems: split name to what gets the findings: the later of two splits that share an image.
    """
    first_of: dict[Key, tuple[str, Path]] = {}
    for split, table in tables.items():
        own: dict[Key, tuple[str, Path]] = {}
        for row, digest in enumerate(digests.get(split) or [b""] * len(table)):
            path = table.path(row)
            key = digest or str(path)
            if key in first_of:
                other_split, other = first_of[key]
                problems[split].add(LEAK, f"{path.name} is {other.name} of {other_split}")
            elif key in own and own[key][1] != path:  # the same path twice is reported by the readers
                problems[split].add(DUPLICATE, f"{path.name} is {own[key][1].name}")
            own.setdefault(key, (split, path))
        first_of = {**own, **first_of}


def check_classes(tables: Mapping[str, AnnotationTable], problems: Mapping[str, Problems]) -> None:
    """Report class names that not all splits have, and classes that training never sees.

    Args:
        tables: split name to split; without ``train`` there is nothing to compare with.
        problems: split name to what gets the findings.
    """
    train = tables.get("train")
    if train is None:
        return
    for split, table in tables.items():
        for name in sorted(set(table.names) ^ set(train.names)):
            problems[split].add(OTHER_NAMES, f"{name} (only in {'train' if name in train.names else split})")
    if not is_trained_on(train).any():
        return
    num_trained = _boxes_by_name(train)
    for name in (name for name, count in num_trained.items() if not count):
        others = {split: _boxes_by_name(table).get(name, 0) for split, table in tables.items() if split != "train"}
        seen = ", ".join(f"{count} boxes in {split}" for split, count in others.items() if count)
        problems["train"].add(NEVER_TRAINED, f"{name} ({seen})" if seen else name)


def _boxes_by_name(table: AnnotationTable) -> dict[str, int]:
    counts = np.bincount(table.labels[is_trained_on(table)], minlength=len(table.names))
    return dict(zip(table.names, counts.tolist(), strict=True))


def check_unlisted(config: DataConfig, tables: Mapping[str, AnnotationTable], problems: Mapping[str, Problems]) -> None:
    """Report image files that no split uses, and files of formats that are not read, by their suffixes.

    Args:
        config: the data set.
        tables: all its splits: what another split names is not unlisted.
        problems: split name to what gets the findings: the first split that has the folder.
    """
    paths = {path for table in tables.values() for paths in (table.image_paths, table.skipped_paths) for path in paths}
    named = paths | {os.path.realpath(path) for path in paths}
    searched: set[Path] = set()
    for split in tables:
        folder = image_folder(config, split)
        if folder in searched:
            continue
        searched.add(folder)
        if not problems[split].count(NOT_READ):
            report_left_out(files_in(folder), problems[split])
        for path in images_in(folder):
            if os.fsencode(path) not in named and os.path.realpath(os.fsencode(path)) not in named:
                problems[split].add(UNLISTED, str(path.relative_to(folder)))
                named.add(os.fsencode(path))


def image_folder(config: DataConfig, split: str) -> Path:
    """The folder of a split's images, as the readers resolve it."""
    return Path(config.root, config.splits[split].images).resolve()


def images_in(folder: Path) -> Iterator[Path]:
    """The image files in a folder and those below, as ``files_in`` gives them."""
    return (path for path in files_in(folder) if is_image_name(path.name))


def files_in(folder: Path) -> Iterator[Path]:
    """The files in a folder and those below, sorted; hidden ones are left out, linked folders are not entered."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(parent, name)
