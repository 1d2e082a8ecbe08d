"""Names of splits, as folders and files of data sets have them."""

from __future__ import annotations

import re

_SPLIT = re.compile(
    r"(train|training|val|valid|validation|test|testing|trainval|minitrain|test-dev|test-challenge)(?=$|\d|_)"
)
_OURS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


def split_of(name: str) -> str | None:
    """The split that a name such as ``train2017`` or ``Validation`` means."""
    found = _SPLIT.match(name.lower())
    return None if found is None else _OURS.get(found[1], found[1])
