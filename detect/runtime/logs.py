"""Where messages go: standard error, one line each, without getting in the way of a progress bar."""

from __future__ import annotations

import logging
import sys

from tqdm import tqdm

from detect.errors import visible

LOGGER = logging.getLogger("detect")
"""The toolkit's logger. As a library it stays silent unless the application configures logging."""
LOGGER.addHandler(logging.NullHandler())


class _ProgressHandler(logging.Handler):
    """Writes above an active progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def configure_logging() -> None:
    """Show the toolkit's messages on standard error (for the command-line tools)."""
    handler = _ProgressHandler()
    handler.setFormatter(_LevelFormatter())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


def speak_as(speaker: str, level: int) -> None:
    """Name the speaker in front of each message, and leave out what is below a level.

    Args:
        speaker: one of several processes that write to the same terminal.
        level: of ``logging``.
    """
    LOGGER.setLevel(level)
    for handler in LOGGER.handlers:
        handler.setFormatter(_LevelFormatter(f"{speaker}: "))


class _LevelFormatter(logging.Formatter):
    """The bare message for information, the level in front of anything graver; one visible line each."""

    def __init__(self, speaker: str = "") -> None:
        super().__init__()
        self._speaker = speaker

    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return visible(self._speaker + prefix + super().format(record))
