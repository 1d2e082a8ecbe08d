"""Images of a classification split and their classes, independent of the format.

Letters: N images, H W pixels, K classes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detect.data.annotations import Problems
from detect.data.checks import check_distinct
from detect.data.images import read_image, read_image_file
from detect.data.pixel_values import PLAIN, ReadSettings
from detect.errors import InputError, did_you_mean
from detect.runtime.logs import decoder_warnings


@dataclass(frozen=True)
class ClassTable:
    """Images of a split and their classes.

    Args:
        image_paths: (N,) bytes (dtype S), absolute paths in UTF-8; ``path`` decodes one. Images inside an archive have
            the path of its file and their number in it (``data_batch_1#17``).
        labels: (N,) int64 class index in [0, K).
        names: K class names.
        pixels: (N, H, W, 3) uint8 RGB, if the images were decoded while reading; else None.
        problems: found while reading.
        read_settings: of the files.
    """

    image_paths: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    pixels: np.ndarray | None = None
    problems: Problems = dataclasses.field(default_factory=Problems)
    read_settings: ReadSettings = PLAIN

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> Path:
        """Path of image ``row``."""
        return Path(self.image_paths[row].decode("utf-8", "surrogateescape"))

    def read(self, row: int) -> np.ndarray:
        """Read image ``row``, (H, W, 3) uint8 RGB; ``ImageError`` if that fails."""
        if self.pixels is not None:
            pixels: np.ndarray = self.pixels[row]
            return pixels
        with decoder_warnings(self.path(row)):
            return read_image(self.path(row), self.read_settings)

    def read_bytes(self, row: int) -> bytes:
        return read_image_file(self.path(row), self.read_settings.max_pixels)

    def of_classes(self, names: tuple[str, ...]) -> ClassTable:
        """Select the images of some classes, which get the indices 0, 1, ... in the order of ``names``.

        Raises:
            InputError: a name is unknown or a duplicate, or these classes have no images.
        """
        if names == self.names:
            return self
        check_distinct(names)
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise InputError(f"names: there is no class {unknown[0]!r}{did_you_mean(unknown[0], self.names)}")
        new_labels = np.array([names.index(name) if name in names else -1 for name in self.names], np.int64)[
            self.labels
        ]
        keep = new_labels >= 0
        if not keep.any():
            raise InputError(f"names: no image shows any of {', '.join(names)}")
        return dataclasses.replace(self, labels=new_labels, names=names).select(keep)

    def select(self, keep: np.ndarray) -> ClassTable:
        """Return the images where ``keep`` (N,) bool is True."""
        return dataclasses.replace(
            self,
            image_paths=self.image_paths[keep],
            labels=self.labels[keep],
            pixels=None if self.pixels is None else self.pixels[keep],
        )
