"""Ownership of output files: a prediction run replaces files of earlier runs, and none of the user's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from detect.errors import InputError

LIST_NAME = ".detect-outputs"
"""File in the output folder that lists the files of prediction runs: paths below the folder, each ended by a zero
byte, the one character that no file name has."""


class OutputFolder:
    """A folder of results, which need not exist yet and may hold files of the user.

    A file is replaced only if it is in the folder's list. A path is listed before it is written, so that an
    interrupted run can be repeated.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        try:
            content = (folder / LIST_NAME).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            content = b""
        # Behind the last zero byte is an incomplete path.
        self._ours = {os.fsdecode(name) for name in content.split(b"\0")[:-1]}

    def check(self, places: Iterable[str], sources: Sequence[Path]) -> None:
        """Check, before a run, that it replaces only files of earlier runs.

        Args:
            places: paths below the folder that the run will write; one that ends in ``/`` is a folder that it fills.
            sources: the images that the run reads.

        Raises:
            InputError: a place is one of the sources or holds one, or exists and is not from an earlier run.
        """
        taken = [place for place in places if os.path.lexists(self.path / place)]
        if not taken:
            return
        inputs = {_identity(source) for source in sources if source.exists()}
        folders = {folder for source in sources if source.exists() for folder in source.resolve().parents}
        holding = {_identity(folder) for folder in folders}
        for place in taken:
            path = self.path / place
            if path.exists() and _identity(path) in (holding if place.endswith("/") else inputs):
                raise InputError(f"--out {self.path}: {path} would replace an image of --source; choose another folder")
            if place not in self._ours:
                raise InputError(
                    f"--out {self.path}: {path} is there and not from an earlier prediction; choose another folder"
                )

    def claim(self, place: str) -> Path:
        """List a path below the folder, and return the whole path."""
        if place not in self._ours:
            self.path.mkdir(parents=True, exist_ok=True)
            with (self.path / LIST_NAME).open("ab") as file:
                file.write(os.fsencode(place) + b"\0")
            self._ours.add(place)
        return self.path / place


def _identity(path: Path) -> tuple[int, int]:
    """Device and inode: the file behind links and spellings."""
    status = path.stat()
    return status.st_dev, status.st_ino
