"""Images divided into parts so that each class is in each part in the same share, rare classes first.

Letters: N images, G groups of images that stay together, K classes, P parts.

Source: Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data" (ECML PKDD 2011), section 3:
iterative stratification. Theirs looks at one label at a time; here a group goes where it mends most over all classes,
because most images show most classes: on DeepPCB, 0.7 to 0.2 to 0.1, the worst share of a class is then 0.4 points off
instead of 3.1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detect.data.annotations import AnnotationTable

IMAGES_WEIGHT = 0.001
"""What the share of the images counts beside that of a class: it decides where the boxes do not."""


def divide(counts: np.ndarray, groups: np.ndarray, ratios: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """The part of each image.

    The class with the fewest groups left is dealt out first, its largest groups first, each to the part whose shares of
    all classes come nearest to the ratios by it. As long as there are enough groups, every part gets one of each class,
    and one at all. Images without boxes are dealt out as a class.

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
    """(P,) bool, the parts without a group, as soon as so few are left that one of these must get the next."""
    return ~is_served if num_left <= int((~is_served).sum()) else np.zeros(len(is_served), bool)


def _neediest(lacking: np.ndarray, share: np.ndarray, targets: np.ndarray, allowed: np.ndarray) -> int:
    """The ``allowed`` part in which a group lessens the squares of what is lacking most; the first of equals.

    Args:
        lacking: (P, K + 2) of each part's target, as a share of it; below 0 where there is too much.
        share: (K + 2,) of everything, that the group brings.
        targets: (P,) shares of the parts, by which the squares are weighted.
        allowed: (P,) bool.
    """
    after = lacking - share / targets[:, None]
    weights = np.ones(len(share))
    weights[-1] = IMAGES_WEIGHT
    gains = ((lacking**2 - after**2) * weights).sum(axis=1) * targets
    return int(np.argmax(np.where(allowed, np.round(gains, 12), -np.inf)))


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
