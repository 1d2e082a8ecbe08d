"""What the writers of all formats are given."""

from __future__ import annotations

from dataclasses import dataclass

from detect.config.schema import DataConfig, SplitConfig
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
