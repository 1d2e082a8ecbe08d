"""Checks of the plain entries of checkpoints and exported files of strangers."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from detect.errors import InputError, is_writable

MAX_SIDE = 16384
"""Pixels of the long side of a network input; a batch of one such image has 3 GB."""


class Metadata(NamedTuple):
    """The plain entries of a checkpoint or of an exported file; see ``detect.models.checkpoint.Checkpoint``."""

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_size: int
    center_crop: float
    metrics: dict[str, float]
    value_range: tuple[float, float] | None


def read_metadata(content: dict[str, Any], where: str) -> Metadata:
    """Check the plain entries of a file's content; ``where`` is the file, for messages.

    Raises:
        InputError: an entry has the wrong type or is out of its range.
        KeyError: one is missing.
    """
    names, ids = content["names"], content["category_ids"]
    if not _is_list(names, str) or not names or not all(map(is_writable, names)):
        raise InputError(f"{where}: names: must be a list of texts, found {names!r:.80}")
    if not _is_list(ids, int) or len(set(ids)) < len(ids) or any(not -(2**63) <= number < 2**63 for number in ids):
        raise InputError(f"{where}: category_ids: must be a list of different whole numbers, found {ids!r:.80}")
    if len(ids) != len(names):
        raise InputError(f"{where}: has {len(names)} names, but {len(ids)} category ids")
    size, crop, metrics = content["image_size"], content.get("center_crop", 1.0), content["metrics"]
    if type(size) is not int or not 1 <= size <= MAX_SIDE:
        raise InputError(f"{where}: image_size: must be a whole number from 1 to {MAX_SIDE}, found {size!r:.80}")
    if type(crop) is not float or not 0 < crop <= 1:
        raise InputError(f"{where}: center_crop: must be a number above 0 and up to 1, found {crop!r:.80}")
    if not isinstance(metrics, dict) or not _is_list(list(metrics), str) or not _is_list([*metrics.values()], float):
        raise InputError(f"{where}: metrics: must be numbers by their names, found {metrics!r:.80}")
    value_range = _read_range(content.get("value_range"), where)
    return Metadata(tuple(names), tuple(ids), size, crop, dict(metrics), value_range)


def _read_range(found: Any, where: str) -> tuple[float, float] | None:
    """The range of values of images with more than 8 bits a channel; older files have none."""
    if found is None:
        return None
    is_pair = (
        isinstance(found, (list, tuple)) and len(found) == 2 and all(type(value) in (int, float) for value in found)
    )
    if not is_pair or not all(map(math.isfinite, found)) or not found[0] < found[1]:
        raise InputError(f"{where}: value_range: must be two numbers, the lower one first, found {found!r:.80}")
    return float(found[0]), float(found[1])


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)
