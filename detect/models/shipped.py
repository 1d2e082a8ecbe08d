"""The checkpoints that come with the toolkit, by their names. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

from detect.errors import InputError, did_you_mean

_PACKAGED = Path(__file__).parents[1] / "weights"
WEIGHTS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "weights"
"""Folder of the shipped checkpoints: inside an installed package, or beside it in a checkout."""


def shipped_weights() -> dict[str, Path]:
    """The names of the shipped checkpoints with their files."""
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.pt"))}


def find_weights(weights: Path) -> Path:
    """The file of a checkpoint.

    Args:
        weights: a file, which need not be there, or the name of a shipped checkpoint (``yolov5n-spd-bccd``). A file
            that is there goes before a name.

    Raises:
        InputError: a single word without suffix is neither a file nor a name.
    """
    is_word = len(weights.parts) == 1 and not weights.suffix
    if not is_word or weights.is_file():
        return weights
    shipped = shipped_weights()
    if weights.name not in shipped:
        hint = did_you_mean(weights.name, shipped)
        raise InputError(f"{weights.name!r} is neither a file nor one of weights/{hint}")
    return shipped[weights.name]
