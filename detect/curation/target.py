"""What the writers of all formats are given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import AnnotationTable, Problems


@dataclass(frozen=True)
class Target:
    """A split that is to be written.

    Args:
        config: the data set that it comes from.
        split: its name.
        table: its images and boxes.
        images: folder of the images in the new data set, relative to it; or, absolute, where they stay.
        image_names: N paths relative to that folder, with ``/``.
        names: K class names, as they can be written.
        stays: the images stay where they are, among others perhaps, so that a list says which are meant.
        losses: gets what the format cannot hold.
    """

    config: DataConfig
    split: str
    table: AnnotationTable
    images: str
    image_names: list[str]
    names: tuple[str, ...]
    stays: bool
    losses: Problems

    @property
    def source(self) -> SplitConfig:
        """Where the split comes from."""
        return self.config.splits[self.split]


def annotation_file(folder: Path, image_name: str, suffix: str) -> Path:
    """The file of an image's boxes in a folder, which is made: called like the image, but for the suffix."""
    path = folder / PurePosixPath(image_name).with_suffix(suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write UTF-8 text, a line each, into a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
