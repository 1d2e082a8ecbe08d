"""Checks of all annotation readers on files, images and boxes. Nothing is dropped without being counted.

Letters: N images, M boxes.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from detect.class_names import some_names
from detect.config.data import DataConfig
from detect.data.annotations import Problems, Understood
from detect.data.images import ImageError, ImageHeader, read_header
from detect.data.pixel_values import MAX_PIXELS
from detect.errors import InputError, did_you_mean, is_path
from detect.runtime.logs import LOGGER, decoder_warnings
from detect.runtime.progress import progress_bar

BAD_IMAGE = "images that are missing or damaged (skipped)"
SHARED_FILE = "images that share their file with another one (kept)"
WRONG_SIZE = "images of another size than their annotations say (skipped)"
OTHER_SIZE = "images of another size than their annotations say, inside which all their boxes lie (kept)"
UNROTATED_SIZE = "images whose annotations give the size before the EXIF rotation (the rotated size is taken)"
NOT_FINITE = "boxes with coordinates that are not finite numbers (skipped)"
NO_AREA = "boxes of zero or negative size (skipped)"
OUTSIDE = "boxes wholly outside their image (skipped)"
PARTLY_OUTSIDE = "boxes that reach out of their image by more than a pixel (kept; clipped in training)"
REPEATED = "boxes that repeat another one of the same class exactly (kept)"

_MANY_IMAGES = 1000  # the headers of fewer are read in about a second
_NUM_THREADS = 8  # they wait for the disk; more of them wait for each other when it is fast
_CHUNK = 64  # images per task: dispatching single images takes longer than reading their headers
_NUM_LISTED = 8
_MAX_SLIP_PX = 2  # of a declared size: counted from 0, rounded, or cropped to whole blocks
_MAX_RATIO_ERROR = 0.02  # of a resized image's two factors: rounding to whole pixels
_MISSPELLED = 0.75
"""Least similarity of a misspelled class name: ``dogs`` and ``dog`` have 0.86, ``cat`` and ``car`` 0.67."""


def find_folder(config: DataConfig, folder: str) -> Path:
    """Return a folder of the data set.

    Raises:
        InputError: it does not exist; the message lists the content of the data set's root.
    """
    path = Path(config.root) / folder
    if not is_path(folder):
        raise InputError(f"{config.name}: {folder!r:.100} cannot be a path")
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; {_root_content(Path(config.root))}")
    return path


def check_split(config: DataConfig, split: str) -> None:
    if split not in config.splits:
        raise InputError(f"{config.name}: there is no split {split!r}{did_you_mean(split, config.splits)}")


def check_distinct(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise InputError(f"names: duplicate class in {', '.join(names)}")


def absent_classes(wanted: Sequence[str], listed: Collection[str], complaint: Callable[[str], str]) -> list[str]:
    """Return the class names of a data config that a split does not list, and log them.

    Args:
        wanted: the names of the data config.
        listed: the names of the split.
        complaint: makes the message from quoted names.

    Raises:
        InputError: the split lists none of them; or one resembles a listed class that is not wanted, so that it seems
            to be misspelled.
    """
    absent = [name for name in wanted if name not in listed]
    spare = [name for name in listed if name not in wanted]
    folded = {name.casefold(): name for name in spare}
    for name in absent:
        near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=_MISSPELLED)
        if near or len(absent) == len(wanted):
            raise InputError(f"names: {complaint(repr(name))}{did_you_mean(name, [folded[n] for n in near] or listed)}")
    if absent:
        beside = f"; not among the names: {some_names(spare)}" if spare else ""
        LOGGER.info(
            "names: %s, nor any object of it (classes without: %d of %d)%s",
            *(complaint(some_names(absent)), len(absent), len(wanted), beside),
        )
    return absent


def log_problems(config: DataConfig, split: str, problems: Problems, strict: bool) -> None:
    """Log each kind of problem of a split in one line with its count; with ``strict``, refuse the split."""
    lines = problems.lines()
    wrong = [line for kind, line in lines.items() if not isinstance(kind, Understood)]
    if strict and wrong:
        raise InputError(f"{config.name} {split}: refused, because --strict was asked for: {' | '.join(wrong)}")
    for kind, line in lines.items():
        level = logging.INFO if isinstance(kind, Understood) else logging.WARNING
        LOGGER.log(level, "%s %s: %s", config.name, split, line)


def find_annotations(config: DataConfig, split: str) -> str:
    annotations = config.splits[split].annotations
    if annotations is None:
        raise InputError(f"{config.name}: splits.{split}.annotations: is missing, which format {config.format} needs")
    return annotations


def find_file(config: DataConfig, file: str) -> Path:
    """Return a file of the data set; if it does not exist, the file of that name in the root itself.

    Copies of COCO often have their annotations beside the image folders instead of in ``annotations/``.

    Raises:
        InputError: neither exists; the message lists the content of the data set's root.
    """
    path = Path(config.root) / file
    beside = Path(config.root) / path.name
    if not is_path(file):
        raise InputError(f"{config.name}: {file!r:.100} cannot be a path")
    if not path.is_file() and beside.is_file():
        LOGGER.info("%s: is not there, %s is taken", path, beside)
        return beside
    if not path.is_file():
        raise InputError(f"{path}: no such file; {_root_content(Path(config.root))}")
    return path


def _root_content(root: Path) -> str:
    if not root.is_dir():
        return f"the data set's root {root} does not exist either; name it with --data-root (data/README.md)"
    names = sorted(p.name + "/" * p.is_dir() for p in root.iterdir())
    listed = ", ".join(names[:_NUM_LISTED]) + (", ..." if len(names) > _NUM_LISTED else "")
    return f"the data set's root {root} has {listed or 'nothing'}; is it the right one? (--data-root)"


def path_inside(folder: Path, name: str, where: str) -> Path:
    """Return ``folder / name``; ``InputError`` if the name leads out of the folder or cannot be a file name.
    Symbolic links are followed: data sets are built of them, and the file is only read as an image. ``folder`` is
    absolute; ``where`` is the origin of the name, for the message.
    """
    path = inside(folder, name)
    if path is None:
        raise InputError(f"{where}: file name {name[:100]!r} leads out of the images' folder {folder}; refused")
    return path


def inside(folder: Path, name: str) -> Path | None:
    """Return ``folder / name``; None if the name leads out of the folder, or cannot be a file name."""
    path = os.path.normpath(Path(folder, name))
    is_inside = path.startswith(f"{folder}{os.sep}") and "\0" not in name and _is_encodable(name)
    return Path(path) if is_inside else None


def _is_encodable(name: str) -> bool:
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def inspect_images(
    paths: Sequence[Path],
    declared_hw: np.ndarray,
    problems: Problems,
    title: str,
    *,
    max_pixels: int = MAX_PIXELS,
    ends_xy_px: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Read every image's header and trailer, and compare its size with the annotations as ``compare_sizes`` does.

    Images of more than ``max_pixels`` are unusable. Many images have a progress bar.
    """
    for path, count in Counter(paths).items():
        if count > 1:
            problems.add(SHARED_FILE, path.name)
    headers = _read_headers(paths, title, max_pixels)
    return compare_sizes(paths, headers, declared_hw, problems, title, ends_xy_px)


def compare_sizes(
    paths: Sequence[Path],
    headers: Sequence[ImageHeader | ImageError],
    declared_hw: np.ndarray,
    problems: Problems,
    title: str,
    ends_xy_px: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compare the sizes of N headers with the annotations, and add what is wrong to ``problems``.

    ``declared_hw`` (N, 2) int64 are height and width of the annotations, 0 where they give none; ``ends_xy_px`` (N, 2)
    the largest right and bottom of each image's boxes. An image of another size than declared is kept where they lie
    inside of it, unless it is an enlarged or reduced copy.

    Returns:
        sizes_hw (N, 2) int32, the true sizes with EXIF orientation applied; is_good (N,) bool, the usable images.

    Raises:
        InputError: no image can be used.
    """
    sizes_hw = np.zeros((len(paths), 2), np.int32)
    is_good = np.zeros(len(paths), bool)
    first_problem = ""
    for row, (header, (height, width)) in enumerate(zip(headers, declared_hw.tolist(), strict=True)):
        kind, example = _image_problem(paths[row], header, height, width)
        if kind == WRONG_SIZE and ends_xy_px is not None and isinstance(header, ImageHeader):
            kind = OTHER_SIZE if _is_same_frame(header.size_hw, (height, width), ends_xy_px[row]) else kind
        if kind:
            problems.add(kind, example)
            first_problem = first_problem or example
        if isinstance(header, ImageHeader) and kind in ("", UNROTATED_SIZE, OTHER_SIZE):
            sizes_hw[row], is_good[row] = header.size_hw, True
    if not is_good.any():
        raise InputError(f"{title}: none of the {len(paths)} images can be used; the first: {first_problem}")
    return sizes_hw, is_good


def _read_headers(paths: Sequence[Path], title: str, max_pixels: int) -> list[ImageHeader | ImageError]:
    if len(paths) <= _CHUNK:  # starting threads would take longer
        return [_header_or_error(path, max_pixels) for path in paths]
    headers: list[ImageHeader | ImageError] = []
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with (
        ThreadPoolExecutor(_NUM_THREADS) as pool,
        progress_bar(None, title, len(paths), unit=" images", is_shown=len(paths) > _MANY_IMAGES) as bar,
    ):
        for found in pool.map(lambda chunk: [_header_or_error(path, max_pixels) for path in chunk], chunks):
            headers += found
            bar.update(len(found))
    return headers


def _header_or_error(path: Path, max_pixels: int) -> ImageHeader | ImageError:
    try:
        with decoder_warnings(path):
            return read_header(path, max_pixels)
    except ImageError as error:
        return error


def _image_problem(path: Path, header: ImageHeader | ImageError, height: int, width: int) -> tuple[str, str]:
    """Return kind and example of the problem of an image of the declared size; empty if there is none."""
    if isinstance(header, ImageError):
        return BAD_IMAGE, str(header)
    if (height, width) == header.size_hw or height <= 0 or width <= 0:
        return "", ""
    example = f"{path.name} is {header.size_hw[1]} x {header.size_hw[0]}, its annotations say {width} x {height}"
    if header.orientation >= 5 and (width, height) == header.size_hw:
        return UNROTATED_SIZE, example
    return WRONG_SIZE, example


def _is_same_frame(size_hw: tuple[int, int], declared_hw: tuple[int, int], end_xy_px: np.ndarray) -> bool:
    """Tell whether boxes that end there can be in pixels of an image, although another size is declared.

    In an enlarged or reduced image they cannot: both sides differ by the same factor, by more than some pixels.
    """
    ratios = [side / declared for side, declared in zip(size_hw, declared_hw, strict=True)]
    is_slip = all(abs(side - declared) <= _MAX_SLIP_PX for side, declared in zip(size_hw, declared_hw, strict=True))
    is_resized = not is_slip and abs(ratios[0] / ratios[1] - 1) < _MAX_RATIO_ERROR
    return not is_resized and bool((end_xy_px <= np.array(size_hw[::-1]) + 1).all())


def check_boxes(
    boxes_xywh_px: np.ndarray, sizes_hw: np.ndarray, describe: Callable[[int], str], problems: Problems
) -> np.ndarray:
    """Find the usable boxes.

    Args:
        boxes_xywh_px: (M, 4) float64 left, top, width, height in pixels of their images.
        sizes_hw: (M, 2) height and width of each box's image.
        describe: names a box by its index, for the examples.
        problems: gets the problems.

    Returns:
        (M,) bool, the boxes to keep.
    """
    left, top, width, height = boxes_xywh_px.T
    image_height, image_width = sizes_hw.T
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is caught first
        right, bottom = left + width, top + height
        tests = {
            NOT_FINITE: ~np.isfinite([*boxes_xywh_px.T, right, bottom, width * height]).all(axis=0),
            NO_AREA: (width <= 0) | (height <= 0),
            OUTSIDE: (left >= image_width) | (top >= image_height) | (right <= 0) | (bottom <= 0),
            PARTLY_OUTSIDE: (left < -1) | (top < -1) | (right > image_width + 1) | (bottom > image_height + 1),
        }
    keep = np.ones(len(boxes_xywh_px), bool)
    for kind, is_wrong in tests.items():
        for index in np.flatnonzero(is_wrong & keep).tolist():
            problems.add(kind, f"{describe(index)}: {_short(boxes_xywh_px[index])}")
        if kind != PARTLY_OUTSIDE:
            keep &= ~is_wrong
    return keep


def report_repeated(
    boxes_xywh_px: np.ndarray, rows: np.ndarray, labels: np.ndarray, describe: Callable[[int], str], problems: Problems
) -> None:
    """Report duplicate boxes: same image (``rows``, (M,)), class (``labels``, (M,)) and coordinates (M, 4)."""
    keys = np.column_stack([rows, labels, boxes_xywh_px])
    order = np.lexsort(keys.T[::-1])
    is_same = (keys[order][1:] == keys[order][:-1]).all(axis=1)
    for index in order[1:][is_same].tolist():
        problems.add(REPEATED, f"{describe(index)}: {_short(boxes_xywh_px[index])}")


def _short(box: np.ndarray) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in box) + "]"
