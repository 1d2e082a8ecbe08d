"""A fingerprint of the data that a run learns from, so that a resumed run knows whether it is the same.

File times and folders are no part of it: a data set may be moved or copied. Pixels are not, either: reading them all
would take as long as an epoch.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from detect.class_names import match_names, some_names
from detect.data.annotations import AnnotationTable
from detect.data.classification.table import ClassTable

Fingerprint = dict[str, dict[str, Any]]
"""Of each split: ``images`` and, for detection, ``boxes``, numbers; ``classes``, their names in order; ``sha256`` of
the images' names, sizes, boxes and labels."""


def fingerprint_of(table: AnnotationTable | ClassTable) -> dict[str, Any]:
    """The fingerprint of a split, as plain values."""
    counts = {"images": len(table)}
    columns = [table.labels]
    if isinstance(table, AnnotationTable):
        counts["boxes"] = len(table.labels)
        columns += [table.sizes_hw, table.box_offsets, table.boxes_xyxy_px, table.is_crowd]
    digest = hashlib.sha256("\0".join(table.path(row).name for row in range(len(table))).encode(errors="replace"))
    for column in columns:
        digest.update(np.ascontiguousarray(column).tobytes())
    return {**counts, "classes": list(table.names), "sha256": digest.hexdigest()}


def differences(before: dict[str, Any], now: Fingerprint) -> str:
    """What has changed, in words; empty if nothing has.

    Args:
        before: of the data that the run was started with, as a checkpoint has it.
        now: of the data as it is.
    """
    pairs = [(split, before.get(split), now[split]) for split in now]
    return "; ".join(f"{split} has {_difference(old, new)}" for split, old, new in pairs if old not in (None, new))


def _difference(before: Any, now: dict[str, Any]) -> str:
    before = before if isinstance(before, dict) else {}
    counts = [key for key in ("images", "boxes") if key in now and before.get(key) != now[key]]
    changes = [f"{before.get(key)} -> {now[key]} {key}" for key in counts]
    classes = before.get("classes")
    if isinstance(classes, list) and classes != now["classes"]:
        match = match_names(tuple(map(str, classes)), tuple(now["classes"]))
        lists = (("without", match.only_source), ("with", match.only_target))
        found = ", ".join(f"{word} {some_names(names)}" for word, names in lists if names)
        changes.append(f"other classes ({found or 'in another order'})")
    return ", ".join(changes) or "as many images and boxes, but other names, sizes, boxes or labels"
