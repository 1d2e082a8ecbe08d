"""What became of a training: its score, or the line that says why it has none."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from detect.errors import InputError
from detect.sweep.ledger import LOG

MAX_LINE = 300
"""Characters of the last line of a failed trial that are kept."""


def outcome_of(folder: Path, code: int, metric: str) -> float | str:
    """The score of a trial whose process has ended, or why it has none.

    Args:
        folder: of the trial.
        code: the exit code; of a process that a signal ended, minus the signal.
        metric: of the score.
    """
    if code:
        end = f"signal {-code}" if code < 0 else f"exit code {code}"
        return _last_line(folder / LOG) or f"ended with {end} and said nothing"
    try:
        return read_score(folder / "results.csv", metric)
    except InputError as error:
        return str(error)


def read_score(path: Path, metric: str) -> float:
    """The best value of a metric over the epochs of a run.

    Args:
        path: the ``results.csv`` of ``detect.training.recorder``.
        metric: whose column is ``val/METRIC``.

    Raises:
        InputError: there is no such file or column, or no finite number in it.
    """
    column = f"val/{metric}"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            cells = [row.get(column) for row in csv.DictReader(file, strict=True)]
        numbers = [float(cell) for cell in cells if cell]
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read: {error.strerror or error}") from None
    except (ValueError, csv.Error):
        raise InputError(f"{path.name}: is damaged") from None
    finite = [number for number in numbers if math.isfinite(number)]
    if not finite:
        raise InputError(f"{path.name}: has no {column}")
    return max(finite)


def _last_line(path: Path) -> str:
    """The last line of a log with something on it: printable characters, cut to ``MAX_LINE``, without ``error: ``."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 2**16, 0))
        text = file.read().decode("utf-8", "replace")
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
    line = " ".join(lines[-1].split()).removeprefix("error: ") if lines else ""
    return "".join(c for c in line if c.isprintable())[:MAX_LINE]
