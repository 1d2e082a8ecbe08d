"""Ids of COCO files: whole numbers, also those written as 7.0, beyond 64 bits, or as text.

Letters: N ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

MAX_TEXT = 1000
"""Characters of an id that is text; longer ones are no ids."""

Key = int | str
"""An id as a dictionary's key."""


def id_key(value: Any) -> Key | None:
    """The id that a JSON value is: a whole number (7.0 is 7) or a text; None for anything else, true and false too."""
    if type(value) is int:
        return value
    if type(value) is float:
        return int(value) if value.is_integer() else None
    return value if isinstance(value, str) and 0 < len(value) <= MAX_TEXT else None


def number_ids(keys: Sequence[Key]) -> tuple[np.ndarray, np.ndarray | None]:
    """Whole numbers for ids.

    Args:
        keys: N distinct ids.

    Returns:
        (N,) int64: the ids themselves, ``"7"`` as 7, where all are distinct such numbers; else 1..N. And (N,) bytes,
        the ids as JSON, if any is something else than its number.
    """
    numbers = [_as_number(key) for key in keys]
    fits = [number for number in numbers if isinstance(number, int) and abs(number) < 2**63]
    if len(set(fits)) < len(keys):
        numbers = list(range(1, len(keys) + 1))
    as_json = None if numbers == list(keys) else np.array([json.dumps(key).encode() for key in keys], np.bytes_)
    return np.array(numbers, np.int64), as_json


def positions_of(values: Iterable[Any], keys: Sequence[Key]) -> tuple[np.ndarray, np.ndarray]:
    """Find ids in a list of ids.

    Args:
        values: M JSON values.
        keys: N distinct ids.

    Returns:
        (M,) int64 position in ``keys``, -1 where it is not there; (M,) bool, those of the same digits but of another
        type: ``"7"`` where the list has 7, or the other way round.
    """
    position_of = {key: position for position, key in enumerate(keys)}
    positions, is_other_type = [], []
    for value in values:
        key = id_key(value)
        position = -1 if key is None else position_of.get(key, -1)
        twin = -1 if position >= 0 or key is None else position_of.get(_twin(key), -1)
        positions.append(max(position, twin))
        is_other_type.append(twin >= 0)
    return np.array(positions, np.int64), np.array(is_other_type, bool)


def shown_id(value: Any) -> str:
    """An id as the file has it, for a message; text in quotes."""
    if isinstance(value, str):
        return json.dumps(value[:60])
    return (
        str(value)[:60]
        if isinstance(value, (int, float))
        else {type(None): "null"}.get(type(value), "a list or mapping")
    )


def _as_number(key: Key) -> Key:
    """A text of digits as its number."""
    is_digits = isinstance(key, str) and len(key) < 20 and key.isascii() and key.isdigit() and str(int(key)) == key
    return int(key) if is_digits else key


def _twin(key: Key) -> Key:
    """The same id as the other type: 7 as ``"7"`` and the other way round."""
    return str(key) if isinstance(key, int) else _as_number(key)
