"""The files that are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detect.errors import InputError
from detect.inference.runtimes.formats import num_bytes
from detect.models.catalog import shipped_weights


@dataclass(frozen=True)
class BenchFile:
    """A file to measure.

    Args:
        label: as the user named it.
        path: of the file.
        is_foreign: of another toolkit (``detect.bench.foreign``).
    """

    label: str
    path: Path
    is_foreign: bool = False

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.path)


def find_files(weights: Sequence[str], foreign: Sequence[str]) -> list[BenchFile]:
    """Find the files, shipped names included.

    Raises:
        InputError: a file does not exist, or is named twice.
    """
    shipped = shipped_weights()
    files = [BenchFile(name, shipped.get(name, Path(name))) for name in weights]
    files += [BenchFile(name, Path(name), is_foreign=True) for name in foreign]
    for number, file in enumerate(files):
        if not file.path.is_file():
            raise InputError(f"{file.label}: is neither a file nor one of weights/")
        if file.path.resolve() in [other.path.resolve() for other in files[:number]]:
            raise InputError(f"{file.label}: is named twice")
    return files
