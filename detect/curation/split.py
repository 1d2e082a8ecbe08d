"""One split divided into train, val and test, as COCO JSON beside the images, which stay where they are.

Letters: N images, K classes, P parts.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detect.config.data import DataConfig, SplitConfig
from detect.curation.coco_files import coco_contents, write_coco_file
from detect.curation.division import count_boxes, divide, group_images
from detect.curation.names import relative_names
from detect.curation.new_config import CONFIG, write_data_config
from detect.curation.target import Target
from detect.data.annotations import AnnotationTable, Problems
from detect.data.datasets import open_split
from detect.drawing.text import pad, shorten
from detect.errors import InputError
from detect.runtime.files import atomic_folder
from detect.runtime.reproducibility import generator

PARTS = ("train", "val", "test")
"""What the parts are called."""

_STREAM = 71  # of the random numbers, for this purpose alone
_NAME_COLUMNS = 24


@dataclass(frozen=True)
class Division:
    """What is wanted.

    Args:
        split: what is divided.
        ratios: shares of the parts, two or three that sum to 1.
        out: the new folder.
        seed: decides among equals.
        group: a regular expression; images in whose names it finds the same (its first group, if it has one) stay
            together.
        strict: refuse damaged images and boxes instead of leaving them out.
    """

    split: str
    ratios: tuple[float, ...]
    out: Path
    seed: int = 0
    group: str | None = None
    strict: bool = False


def split_data(config: DataConfig, wanted: Division) -> list[str]:
    """Divide a split; every class is in every part in the same share, as far as that goes.

    Images with the same content stay together, so that none is trained on and measured.

    Args:
        config: the data set.
        wanted: what becomes of it.

    Returns:
        The report, line by line.

    Raises:
        InputError: the ratios or the expression are wrong, there are too few images, or the folder has something in it.
    """
    _check_ratios(wanted.ratios)
    pattern = _pattern(wanted.group)
    parts = PARTS[: len(wanted.ratios)]
    with atomic_folder(wanted.out) as folder:
        table = open_split(config, wanted.split, wanted.strict)
        if not table.is_labelled:
            raise InputError(f"{config.name}: split {wanted.split!r} has no annotations to divide by")
        if table.shards is not None:
            raise InputError(
                f"{config.name}: images in shards cannot be divided where they lie; convert --to coco first"
            )
        images = Path(os.path.normpath(Path(config.root, config.splits[wanted.split].images)))
        names = relative_names(table, images)
        paths = [table.path(row) for row in range(len(table))]
        groups = group_images(paths, names, pattern)
        counts = count_boxes(table)
        part_of_image = divide(counts, groups, wanted.ratios, generator(wanted.seed, _STREAM))
        _check_parts(part_of_image, parts, int(groups.max()) + 1)
        target = Target(config, wanted.split, table, str(images), names, table.names, True, Problems())
        rows_of_parts = [np.flatnonzero(part_of_image == part) for part in range(len(parts))]
        for name, content in zip(parts, coco_contents(target, rows_of_parts), strict=True):
            write_coco_file(folder / f"{name}.json", content)
        splits = {name: SplitConfig(str(images), f"{name}.json") for name in parts}
        write_data_config(folder, config, "split", "coco", splits, config.names)
    return [
        f"{config.name} {wanted.split}: {len(table)} images in {int(groups.max()) + 1} groups, seed {wanted.seed}",
        *_table(table, counts, part_of_image, parts),
        *(f"changed: {line}" for line in target.losses.summary()),
        f"data config: {wanted.out / CONFIG}",
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
    """Images and boxes of each class in each part, with shares."""
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
