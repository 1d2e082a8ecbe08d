"""Divide a split into train, val and test, as COCO JSON files; the images stay in place.

Each class is in each part in the same share, rare classes first.

Letters: N images, G groups of images that stay together, K classes, P parts.

Source: Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data" (ECML PKDD 2011), section 3:
iterative stratification. It considers one label at a time; here a group goes where it helps most over all classes,
because most images show most classes: on DeepPCB, 0.7 to 0.2 to 0.1, the worst share of a class is then 0.4 points off
instead of 3.1.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import AnnotationTable, Problems
from detect.data.datasets import open_split
from detect.data.formats.coco_writing import coco_contents, write_coco_file
from detect.data.formats.writing import CONFIG, Target, relative_names, write_data_config
from detect.drawing.text import pad, shorten
from detect.errors import InputError
from detect.runtime.files import atomic_folder
from detect.runtime.reproducibility import generator

PARTS = ("train", "val", "test")

IMAGES_WEIGHT = 0.001
"""Weight of the share of the images beside that of a class: it decides where the boxes do not."""

_STREAM = 71  # of the random numbers
_NAME_COLUMNS = 24


@dataclass(frozen=True)
class Division:
    """Options of a division.

    Args:
        split: to divide.
        ratios: shares of two or three parts, which sum to 1.
        out: the new folder.
        seed: decides ties.
        group: a regular expression; images stay together if its match in their names (its first group, if it has one)
            is the same.
        strict: refuse damaged images and boxes instead of skipping them.
    """

    split: str
    ratios: tuple[float, ...]
    out: Path
    seed: int = 0
    group: str | None = None
    strict: bool = False


def split_data(config: DataConfig, options: Division) -> list[str]:
    """Divide a split with every class in every part in the same share, as nearly as possible; return the report's
    lines.

    Images with the same content stay together, so that none is both trained on and evaluated.

    Raises:
        InputError: the ratios or the expression are invalid, there are too few images, or the folder is not empty.
    """
    _check_ratios(options.ratios)
    pattern = _pattern(options.group)
    parts = PARTS[: len(options.ratios)]
    with atomic_folder(options.out) as folder:
        table = open_split(config, options.split, options.strict)
        if not table.is_labelled:
            raise InputError(f"{config.name}: split {options.split!r} has no annotations to divide by")
        if table.shards is not None:
            raise InputError(
                f"{config.name}: images in shards cannot be divided where they lie; convert --to coco first"
            )
        images = Path(os.path.normpath(Path(config.root, config.splits[options.split].images)))
        names = relative_names(table, images)
        paths = [table.path(row) for row in range(len(table))]
        groups = group_images(paths, names, pattern)
        counts = count_boxes(table)
        part_of_image = divide(counts, groups, options.ratios, generator(options.seed, _STREAM))
        _check_parts(part_of_image, parts, int(groups.max()) + 1)
        target = Target(config, options.split, table, str(images), names, table.names, True, Problems())
        rows_of_parts = [np.flatnonzero(part_of_image == part) for part in range(len(parts))]
        for name, content in zip(parts, coco_contents(target, rows_of_parts), strict=True):
            write_coco_file(folder / f"{name}.json", content)
        splits = {name: SplitConfig(str(images), f"{name}.json") for name in parts}
        write_data_config(folder, config, "split", "coco", splits, config.names)
    return [
        f"{config.name} {options.split}: {len(table)} images in {int(groups.max()) + 1} groups, seed {options.seed}",
        *_table(table, counts, part_of_image, parts),
        *(f"changed: {line}" for line in target.losses.summary()),
        f"data config: {options.out / CONFIG}",
    ]


def _check_ratios(ratios: tuple[float, ...]) -> None:
    is_good = 2 <= len(ratios) <= len(PARTS) and all(0 < ratio < 1 for ratio in ratios)
    if not is_good or not math.isclose(sum(ratios), 1, abs_tol=1e-6):
        shown = " ".join(f"{ratio:g}" for ratio in ratios)
        raise InputError(f"--ratios {shown}: must be two or three numbers above 0 that sum to 1 ({', '.join(PARTS)})")


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise InputError(f"--group {text!r}: is not a regular expression: {error}") from None


def _check_parts(part_of_image: np.ndarray, parts: tuple[str, ...], num_groups: int) -> None:
    empty = [name for part, name in enumerate(parts) if not (part_of_image == part).any()]
    if empty:
        raise InputError(
            f"{num_groups} groups of images are too few for these ratios: {', '.join(empty)} would be empty"
        )


def _table(table: AnnotationTable, counts: np.ndarray, part_of_image: np.ndarray, parts: tuple[str, ...]) -> list[str]:
    """Return the lines of a table: images and boxes of each class in each part, with shares."""
    is_background = counts.sum(axis=1) == 0
    rows = [("images", np.ones(len(table), np.int64)), ("without boxes", is_background.astype(np.int64))]
    rows += [(shorten(name, _NAME_COLUMNS), counts[:, label]) for label, name in enumerate(table.names)]
    lines = [pad("", _NAME_COLUMNS) + "".join(f"{part:>16}" for part in parts)]
    for title, values in rows:
        sums = [int(values[part_of_image == part].sum()) for part in range(len(parts))]
        total = max(sum(sums), 1)
        lines.append(
            pad(title, _NAME_COLUMNS) + "".join(f"{value:>8} {value / total:>6.1%}".rjust(16) for value in sums)
        )
    return lines


# ------------------------------------------------------------------------------------------- stratification


def divide(counts: np.ndarray, groups: np.ndarray, ratios: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Return (N,) int64 in [0, P), the part of each image.

    The class with the fewest groups left is assigned first, its largest groups first, each to the part whose shares of
    all classes it brings nearest to the ratios. As long as there are enough groups, every part gets one of each class,
    and one at all. Images without boxes count as a class.

    Args:
        counts: (N, K) int64 boxes of each class in each image.
        groups: (N,) int64 in [0, G); images of a group go to the same part.
        ratios: P shares that sum to 1.
        rng: decides ties.
    """
    is_background = (counts.sum(axis=1) == 0).astype(np.int64)
    columns = np.column_stack([counts, is_background, np.ones(len(counts), np.int64)])
    totals = np.zeros((int(groups.max(initial=-1)) + 1, columns.shape[1]), np.int64)
    np.add.at(totals, groups, columns)  # (G, K + 2): classes, images without boxes, images
    shares = totals / np.maximum(totals.sum(axis=0), 1)
    targets = np.array(ratios)
    lacking = np.ones((len(targets), shares.shape[1]))  # of each part's target, as a share of it
    part_of_group = np.full(len(totals), -1)
    order = rng.permutation(len(totals))
    while (waiting := part_of_group < 0).any():
        num_groups = (totals[waiting, :-1] > 0).sum(axis=0)
        label = int(np.argmin(np.where(num_groups > 0, num_groups, len(totals) + 1)))
        here = order[waiting[order] & (totals[order, label] > 0)]
        here = here[np.argsort(-totals[here, label], kind="stable")]
        has_one = np.array([(totals[part_of_group == part, label] > 0).any() for part in range(len(targets))])
        has_any = np.isin(np.arange(len(targets)), part_of_group)
        for number, group in enumerate(here.tolist()):
            without = _without(has_any, int(waiting.sum()) - number)
            allowed = without if without.any() else _without(has_one, len(here) - number)
            part = _neediest(lacking, shares[group], targets, allowed if allowed.any() else ~allowed)
            part_of_group[group] = part
            has_one[part] = has_any[part] = True
            lacking[part] -= shares[group] / targets[part]
    return part_of_group[groups]


def _without(is_served: np.ndarray, num_left: int) -> np.ndarray:
    """Return (P,) bool: the parts without a group, if so few groups are left that one of these must get the next."""
    return ~is_served if num_left <= int((~is_served).sum()) else np.zeros(len(is_served), bool)


def _neediest(lacking: np.ndarray, share: np.ndarray, targets: np.ndarray, allowed: np.ndarray) -> int:
    """Return the first ``allowed`` part in which a group reduces the weighted squares of ``lacking`` most.

    ``lacking`` (P, K + 2) is relative to each part's target, below 0 where there is too much. The group adds ``share``
    (K + 2,) of the total. ``targets`` (P,), the shares of the parts, are the weights.
    """
    after = lacking - share / targets[:, None]
    weights = np.ones(len(share))
    weights[-1] = IMAGES_WEIGHT
    gains = ((lacking**2 - after**2) * weights).sum(axis=1) * targets
    return int(np.argmax(np.where(allowed, np.round(gains, 12), -np.inf)))


def count_boxes(table: AnnotationTable) -> np.ndarray:
    """Return (N, K) int64 boxes of each class in each image, without crowd regions."""
    counts = np.zeros((len(table), len(table.names)), np.int64)
    np.add.at(counts, (table.image_of_box[~table.is_crowd], table.labels[~table.is_crowd]), 1)
    return counts


def group_images(paths: Sequence[Path], names: Sequence[str], pattern: re.Pattern[str] | None) -> np.ndarray:
    """Return (N,) int64 group of each image: images of the same content, or with the same match of ``pattern`` in their
    names.

    Args:
        paths: N files.
        names: N names.
        pattern: its first group, if it has one, is compared; a name without a match joins no group.
    """
    parents = list(range(len(paths)))

    def top(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    keys = [_contents(paths), [_shared_part(name, pattern) for name in names]]
    for column in keys:
        first: dict[str, int] = {}
        for row, key in enumerate(column):
            if key is not None:
                parents[top(row)] = top(first.setdefault(key, row))
    return np.unique([top(row) for row in range(len(paths))], return_inverse=True)[1].astype(np.int64)


def _contents(paths: Sequence[Path]) -> list[str | None]:
    """Return a digest for each file of a size that is not unique, else None."""
    sizes = [path.stat().st_size for path in paths]
    values, counts = np.unique(sizes, return_counts=True)
    shared = set(values[counts > 1].tolist())
    return [_digest(path) if size in shared else None for path, size in zip(paths, sizes, strict=True)]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _shared_part(name: str, pattern: re.Pattern[str] | None) -> str | None:
    found = pattern.search(name) if pattern else None
    return None if found is None else found[1 if found.re.groups else 0]
