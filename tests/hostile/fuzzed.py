"""What the fuzz tests share: damaged files of every kind, and what must be true of whatever is read from them.

A reader joins with an entry in ``READERS`` (``test_fuzzing.py``): a valid file, and a function that reads one.
"""

from __future__ import annotations

import copy
import math
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
from hypothesis import strategies as st

from detect.data.annotations import AnnotationTable
from detect.errors import InputError, visible

Damage = st.SearchStrategy[bytes]

NONE_FINITE = (math.nan, math.inf, -math.inf)
ODD_NUMBERS = (0, -1, 1, 0.5, -0.0, 1e308, -1e308, 10**30, -(10**30), 2**31, 2**63, 2**64, *NONE_FINITE)
ODD_PATHS = ("../../etc/passwd", "/etc/passwd", "~none/x", ".", "..", "a/" * 3000)
ODD_TEXTS = ("", " ", "\0", "\x1b[2J", "\u202e", "\ud800", "a" * 10_000, *ODD_PATHS)
ODD_VALUES = (*ODD_NUMBERS, *ODD_TEXTS, None, True, False, [], {}, [[]], [None], {"": None})
DAMAGES = ("change", "remove", "repeat", "insert", "number", "cut")
SIZES = (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0")
"""Numbers that binary formats go wrong with."""


@dataclass(frozen=True)
class Reader:
    """A reader and what it is fed with.

    Args:
        damage: makes files.
        read: reads one; what it gives has been checked. An ``InputError`` is a good answer.
        cases: of the slow run.
    """

    damage: Damage
    read: Callable[[bytes], None]
    cases: int


def damaged_bytes(whole: bytes) -> Damage:
    """A file with up to six damages: bytes changed, left out, repeated, or put in, or the end cut off.

    Hypothesis draws the seed only: drawing each damage takes ten times as long, and a damaged file is small as it is.
    """
    return st.randoms(use_true_random=True).map(lambda rng: _damaged(whole, rng))


def _damaged(whole: bytes, rng: random.Random) -> bytes:
    content = bytearray(whole)
    for _ in range(rng.randint(1, 6)):
        place, length, kind = rng.randint(0, len(content)), rng.randint(1, 16), rng.choice(DAMAGES)
        if kind == "change" and place < len(content):
            content[place] = rng.randrange(256)
        elif kind == "remove":
            del content[place : place + length]
        elif kind == "repeat":
            content[place:place] = content[place : place + length] * rng.randint(1, 50)
        elif kind == "insert":
            content[place:place] = rng.randbytes(length)
        elif kind == "number":
            content[place : place + 4] = rng.choice(SIZES)
        elif kind == "cut" and rng.random() < 0.5:
            del content[place:]
    return bytes(content)


def damaged_values(whole: Any) -> st.SearchStrategy[Any]:
    """A structure of dictionaries and lists with up to four damages: a value replaced, removed or repeated, or its key
    changed."""
    return st.randoms(use_true_random=True).map(lambda rng: _changed(whole, rng))


def _changed(whole: Any, rng: random.Random) -> Any:
    content = copy.deepcopy(whole)
    for _ in range(rng.randint(1, 4)):
        places = list(_places(content))
        if not places:
            break
        holder, key = rng.choice(places)
        kind = rng.choice(("replace", "replace", "remove", "repeat", "key"))
        if kind == "replace":
            holder[key] = _any_value(rng)
        elif kind == "remove":
            del holder[key]
        elif kind == "repeat" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == "key" and isinstance(holder, dict):
            holder[rng.choice((*ODD_TEXTS, _text(rng), "id", "name"))] = holder.pop(key)
    return content


def _any_value(rng: random.Random, depth: int = 0) -> Any:
    if rng.random() < 0.5:
        return copy.deepcopy(rng.choice(ODD_VALUES))
    kind = rng.randrange(5 if depth < 3 else 3)
    if kind == 0:
        return rng.randint(-20, 20)
    if kind == 1:
        return rng.uniform(-20, 20)
    if kind == 2:
        return _text(rng)
    inner = [_any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return inner if kind == 3 else {_text(rng): value for value in inner}


def _text(rng: random.Random) -> str:
    """A few characters, of ASCII or of anywhere, lone surrogates among them."""
    return "".join(chr(rng.randrange(rng.choice((128, 0x110000)))) for _ in range(rng.randrange(8)))


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of everything in a structure."""
    waiting = [content]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in keys:
            yield holder, key
            waiting.append(holder[key])


def check_table(table: AnnotationTable) -> None:
    """What holds for every table that a reader gives."""
    num_images, num_boxes, num_classes = len(table), len(table.labels), len(table.names)
    assert num_images > 0
    assert num_classes > 0
    assert len(set(table.image_ids.tolist())) == num_images == len(table.image_paths)
    assert table.sizes_hw.shape == (num_images, 2)
    assert (table.sizes_hw > 0).all()
    assert table.box_offsets.shape == (num_images + 1,)
    assert table.box_offsets[0] == 0
    assert table.box_offsets[-1] == num_boxes
    assert (np.diff(table.box_offsets) >= 0).all()
    assert table.boxes_xyxy_px.shape == (num_boxes, 4)
    assert np.isfinite(table.boxes_xyxy_px).all()
    assert (table.boxes_xyxy_px[:, 2:] >= table.boxes_xyxy_px[:, :2]).all()  # a width may vanish beside its left side
    assert np.isfinite(table.areas).all()
    assert (table.areas >= 0).all()
    assert table.is_crowd.shape == table.areas.shape == (num_boxes,)
    assert ((table.labels >= 0) & (table.labels < num_classes)).all()
    assert len(table.category_ids) == num_classes
    for line in table.problems.summary():
        assert len(line) < 2000
    assert len(table.to_coco()["annotations"]) == num_boxes


def message_of(function: Callable[..., Any], *arguments: Any) -> str:
    """The message of the ``InputError`` that a call ends with; nothing if it ends well."""
    try:
        function(*arguments)
    except InputError as error:
        return str(error)
    return ""


def check_message(message: str) -> None:
    """A refusal is one line that a terminal can show."""
    assert len(message.splitlines()) <= 1, message
    assert message == visible(message), message
    assert len(message) < 5000


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail what does not come to an end."""

    def over(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"takes more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
