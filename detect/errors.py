"""The one exception for what a user, a file or a YAML can get wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A user's mistake, told in one line: where, what was found, what is allowed, a hint.

    The command-line tools print it as ``error: ...`` and end with exit code 2. Broken invariants of
    our own are ``assert``, never this.
    """


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
