"""Images on their way into a new data set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from detect.data.annotations import AnnotationTable
from detect.errors import InputError
from detect.runtime.progress import progress_bar


def transfer_images(table: AnnotationTable, names: Sequence[str], folder: Path, link: bool) -> None:
    """Bring all images of a split into a folder.

    Args:
        table: the split.
        names: N paths relative to the folder, with ``/``.
        folder: where they go.
        link: a hard link each instead of a copy: no space is used, and whoever changes one changes the other.

    Raises:
        InputError: a link cannot be made, as between disks.
    """
    if link and table.shards is not None:
        raise InputError("images in shards cannot be linked: use --images copy")
    done: set[str] = set()
    for row, name in enumerate(progress_bar(names, folder.name, unit=" images", is_shown=len(names) > 1000)):
        if name in done:  # several entries of a COCO file share an image
            continue
        done.add(name)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if table.shards is not None:
            target.write_bytes(table.read_bytes(row))
        elif link:
            _link(table.path(row), target)
        else:
            _copy(table.path(row), target)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        error.filename = str(target)  # not the source, whose first and last bytes could be read
        raise


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        raise InputError(
            f"{source}: cannot be linked: {error.strerror or error}; links need one disk: use --images copy or none"
        ) from None
