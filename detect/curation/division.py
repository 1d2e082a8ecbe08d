"""Images divided into parts so that each class is in each part in the same share, rare classes first.

Letters: N images, G groups of images that stay together, K classes, P parts.

Source: Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data" (ECML PKDD 2011), section 3:
iterative stratification, here of groups, and of numbers of boxes instead of labels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detect.data.annotations import AnnotationTable


def divide(counts: np.ndarray, groups: np.ndarray, ratios: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """The part of each image.

    The class with the fewest groups left is dealt out first, its largest groups first, each to the part that lacks most
    of it. As long as there are enough groups, every part gets one of each class, and one at all. Images without boxes
    are dealt out as a class.

    Args:
        counts: (N, K) int64 boxes of each class in each image.
        groups: (N,) int64 in [0, G); images of a group go to the same part.
        ratios: P shares that sum to 1.
        rng: decides among equals.

    Returns:
        (N,) int64 in [0, P).
    """
    is_background = (counts.sum(axis=1) == 0).astype(np.int64)
    columns = np.column_stack([counts, is_background, np.ones(len(counts), np.int64)])
    totals = np.zeros((int(groups.max(initial=-1)) + 1, columns.shape[1]), np.int64)
    np.add.at(totals, groups, columns)  # (G, K + 2): classes, images without boxes, images
    lacking = np.outer(np.array(ratios), totals.sum(axis=0)).astype(np.float64)  # (P, K + 2)
    part_of_group = np.full(len(totals), -1)
    order = rng.permutation(len(totals))
    while (waiting := part_of_group < 0).any():
        num_groups = (totals[waiting, :-1] > 0).sum(axis=0)
        label = int(np.argmin(np.where(num_groups > 0, num_groups, len(totals) + 1)))
        here = order[waiting[order] & (totals[order, label] > 0)]
        here = here[np.argsort(-totals[here, label], kind="stable")]
        has_one = np.array([(totals[part_of_group == part, label] > 0).any() for part in range(len(ratios))])
        has_any = np.isin(np.arange(len(ratios)), part_of_group)
        for number, group in enumerate(here.tolist()):
            without = _without(has_any, int(waiting.sum()) - number)
            allowed = without if without.any() else _without(has_one, len(here) - number)
            part = _neediest(lacking, label, allowed if allowed.any() else ~allowed)
            part_of_group[group] = part
            has_one[part] = has_any[part] = True
            lacking[part] -= totals[group]
    return part_of_group[groups]


def _without(is_served: np.ndarray, num_left: int) -> np.ndarray:
    """(P,) bool, the parts without a group, as soon as so few are left that one of these must get the next."""
    return ~is_served if num_left <= int((~is_served).sum()) else np.zeros(len(is_served), bool)


def _neediest(lacking: np.ndarray, label: int, allowed: np.ndarray) -> int:
    """The one of the ``allowed`` parts that lacks most of a class, then of all images."""
    candidates = np.flatnonzero(allowed).tolist()
    return max(candidates, key=lambda part: (round(lacking[part, label], 6), lacking[part, -1], -part))


def count_boxes(table: AnnotationTable) -> np.ndarray:
    """(N, K) int64 boxes of each class in each image, without crowd regions."""
    counts = np.zeros((len(table), len(table.names)), np.int64)
    np.add.at(counts, (table.image_of_box[~table.is_crowd], table.labels[~table.is_crowd]), 1)
    return counts


def group_images(paths: Sequence[Path], names: Sequence[str], pattern: re.Pattern[str] | None) -> np.ndarray:
    """(N,) int64 group of each image: those of the same content, and those whose names say that they belong together.

    Args:
        paths: N files.
        names: N names.
        pattern: what it finds in a name (its first group, if it has one) is the same for images of a group; where it
            finds nothing, the name says nothing.
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
    """A digest for each file that may be equal to another one; files of different sizes are not."""
    sizes = [path.stat().st_size for path in paths]
    values, counts = np.unique(sizes, return_counts=True)
    shared = set(values[counts > 1].tolist())
    return [_digest(path) if size in shared else None for path, size in zip(paths, sizes, strict=True)]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _shared_part(name: str, pattern: re.Pattern[str] | None) -> str | None:
    found = pattern.search(name) if pattern else None
    return None if found is None else found[1 if found.re.groups else 0]
