"""The one exception for what a user, a file or a YAML can get wrong, and text that a message may show."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_MAX_LENGTH = 4000
"""Characters of a message: a file may hold a name of a million."""
_BLANKS = re.compile(r"[ \t\r\n]+")
# The joiners belong to the writing of Persian and of Indian languages, and to emoji; the blanks only take room.
_HARMLESS = "\u200c\u200d\u3000\xa0"


class InputError(ValueError):
    """A user's mistake, told in one line: where, what was found, what is allowed, a hint.

    The command-line tools print it as ``error: ...`` and end with exit code 2. Broken invariants of
    our own are ``assert``, never this.

    Args:
        message: may have names from a stranger's file in it; it is made ``visible``, on one line.
    """

    def __init__(self, message: str) -> None:
        shown = visible(_BLANKS.sub(" ", message).strip(" "))
        if len(shown) > _MAX_LENGTH:
            shown = f"{shown[: _MAX_LENGTH // 2]}…{shown[-_MAX_LENGTH // 2 :]}"
        super().__init__(shown)


def did_you_mean(found: str, allowed: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest allowed word, otherwise the allowed words themselves.

    Args:
        found: the word that was not known.
        allowed: the words that would have been.

    Returns:
        A clause that starts with "; ", ready to be put behind the message.
    """
    allowed = sorted(allowed)
    near = difflib.get_close_matches(found, allowed, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; allowed: {', '.join(allowed)}" if allowed else "; nothing is allowed here"


def visible(text: str, keep: str = "") -> str:
    r"""``text`` with escapes such as ``\x1b`` or ``\u202e`` for all that is not shown as itself.

    These are control characters, which move the cursor of a terminal or change its colours, line breaks among them;
    characters that turn the direction of writing or take no room; and lone surrogates, which cannot be encoded.

    Args:
        text: anything.
        keep: characters that stay nevertheless.
    """
    if text.isprintable():
        return text
    keep += _HARMLESS
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def is_writable(text: str) -> bool:
    """Whether a text can be written; JSON, YAML and pickles may hold halves of characters (lone surrogates)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
