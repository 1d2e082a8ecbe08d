"""The exception for invalid input, and text that is safe to print, write or open."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable

_MAX_LENGTH = 4000
"""Characters of a message, which may contain a name from a file."""
_MAX_PATH = 4096
"""Bytes, on Linux."""
_BLANKS = re.compile(r"[ \t\r\n]+")
# Joiners, which Persian, Indian scripts and emoji use, and wide or non-breaking blanks.
_HARMLESS = "\u200c\u200d\u3000\xa0"


class InputError(ValueError):
    """Invalid input of a user, a file or a YAML, in one line: where, what was found, what is allowed, a hint.

    The commands print it as ``error: ...`` and end with exit code 2. A broken invariant is an ``assert``.

    Args:
        message: may contain names from an untrusted file; control characters are escaped, blanks collapsed.
    """

    def __init__(self, message: str) -> None:
        shown = visible(_BLANKS.sub(" ", message).strip(" "))
        if len(shown) > _MAX_LENGTH:
            shown = f"{shown[: _MAX_LENGTH // 2]}…{shown[-_MAX_LENGTH // 2 :]}"
        super().__init__(shown)


def unreadable(path: object, error: OSError) -> InputError:
    """Error of a file that the system cannot read."""
    return InputError(f"{path}: cannot be read: {error.strerror or error}")


def did_you_mean(found: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest allowed word, otherwise ``"; allowed: ..."``, to append."""
    allowed = sorted(allowed)
    near = difflib.get_close_matches(found, allowed, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; allowed: {', '.join(allowed)}" if allowed else "; nothing is allowed here"


def visible(text: str, keep: str = "") -> str:
    r"""Escape control characters, line breaks, invisible and bidirectional characters and lone surrogates, as ``\x1b``.

    Characters in ``keep`` are not escaped.
    """
    if text.isprintable():
        return text
    keep += _HARMLESS
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def is_writable(text: str) -> bool:
    """Return whether a text can be encoded: JSON, YAML and pickles may contain lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_path(text: str) -> bool:
    """Return whether a text can be a path: it has no zero byte, can be encoded, and is not too long."""
    try:
        return "\0" not in text and len(os.fsencode(text)) < _MAX_PATH
    except UnicodeEncodeError:
        return False
