"""Classes as folders: ``train/cat/a.jpg``, ``train/dog/old/b.png``; and Tiny ImageNet, whose training images lie so.

Letters: N images, K classes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import Problems
from detect.data.checks import absent_classes, check_distinct, find_file, find_folder, inspect_images, path_inside
from detect.data.classification.table import ClassTable
from detect.data.folders import count_suffixes, is_image_name, walk_files
from detect.data.formats.layouts import sorted_splits, split_of, subfolders
from detect.data.pixel_values import MAX_PIXELS
from detect.errors import InputError
from detect.runtime.logs import LOGGER

MAX_INSPECTED = 200_000
"""Images whose headers are read when a split is opened: 8,000 a second on two cores, measured on small files in the
system's cache. The 1.28 million of ImageNet would delay each start by minutes, and by more from a slow disk."""

WNIDS, WORDS = "wnids.txt", "words.txt"

BESIDE = "images beside the class folders (skipped)"
UNKNOWN_FOLDER = "class folders that the training split does not have (skipped)"
NO_IMAGES = "classes without images that can be used (kept as classes)"
OTHER_FILE = "files in class folders that are no images by their suffix (skipped)"
UNREADABLE_FOLDER = "folders that cannot be read (skipped)"
BAD_NAME = "class folders whose name is not UTF-8 (skipped)"
BAD_LINE = "lines of annotations that do not have a file and a class (skipped)"
UNKNOWN_WNID = "images of a class that is not in wnids.txt (skipped)"
REPEATED_IMAGE = "images that stand before in the annotations (skipped)"


def find_image_folders(folder: Path) -> dict[str, SplitConfig]:
    """Find the splits of a folder, such as ``train``, that have at least two class folders with images."""
    splits = {
        split: SplitConfig(path.name)
        for path in subfolders(folder)
        if (split := split_of(path.name)) and sum(map(_has_images, subfolders(path))) > 1
    }
    return sorted_splits(splits)


def _has_images(folder: Path) -> bool:
    return any(is_image_name(path.name) for path in folder.iterdir())


def read_image_folders(config: DataConfig, split: str) -> ClassTable:
    """Read one split, ordered by class and path.

    A class has the images in its folder and in all folders in it; links are followed, but not back to the split's
    folder or above it. Hidden files and folders are left out. Damaged images are skipped and counted, of more than
    ``MAX_INSPECTED`` images when they are loaded.

    Args:
        config: the data set. Without ``names`` the classes are all class folders of the split ``train`` (of this split
            if there is none), sorted, so that a class has the same index in all splits.
        split: a key of ``config.splits``.

    Raises:
        InputError: a folder is missing, or no image can be used.
    """
    problems = Problems()
    folder = find_folder(config, config.splits[split].images).resolve()
    found = _class_folders(folder, problems)
    if config.names is not None:
        names = config.names
        _check_names(names, found, folder)
        if left_out := sorted(set(found) - set(names)):
            LOGGER.info("%s %s: %d class folders are not among the names: not used", config.name, split, len(left_out))
    else:
        names = _training_names(config, split, found)
        for name in sorted(set(found) - set(names)):
            problems.add(UNKNOWN_FOLDER, repr(name))
    paths, labels = list_images(folder, [folder / name for name in names], problems)
    return table_of_files(paths, labels, names, problems, f"{config.name} {split}", config.max_pixels)


def _class_folders(folder: Path, problems: Problems) -> list[str]:
    """Names of the class folders, sorted."""
    names = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            if is_image_name(entry.name):
                problems.add(BESIDE, entry.name)
        elif _is_utf8(entry.name):
            names.append(entry.name)
        else:
            problems.add(BAD_NAME, ascii(entry.name))
    if not names:
        beside = f" (it has {problems.count(BESIDE)} images itself)" if problems.count(BESIDE) else ""
        raise InputError(f"{folder}: has no class folders{beside}; images must lie in one folder for each class")
    return names


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_names(names: tuple[str, ...], found: list[str], folder: Path) -> None:
    check_distinct(names)
    if odd := [name for name in names if name not in found and Path(name).name != name]:
        raise InputError(f"names: {folder} has no folder {odd[0]!r}; a class's name is its folder's")
    absent_classes(names, found, lambda name: f"{folder} has no folder {name}")


def _training_names(config: DataConfig, split: str, found: list[str]) -> tuple[str, ...]:
    if split != "train" and "train" in config.splits:
        found = _class_folders(find_folder(config, config.splits["train"].images).resolve(), Problems())
    return tuple(found)


def list_images(folder: Path, class_folders: Sequence[Path], problems: Problems) -> tuple[list[str], list[int]]:
    """List all image files of all classes.

    Args:
        folder: parent of the class folders; links back to it or above it are not followed.
        class_folders: K folders, in the order of the classes; one that does not exist has no images.
        problems: added to.

    Returns:
        N absolute paths, ordered by class and path, and N class indices.
    """
    paths: list[str] = []
    labels: list[int] = []
    others: list[str] = []
    for label, class_folder in enumerate(class_folders):
        if class_folder.is_dir():
            for path in _files_in(class_folder, folder, problems):
                (paths if is_image_name(path) else others).append(path)
            labels += [label] * (len(paths) - len(labels))
    if others:
        problems.merge([(OTHER_FILE, len(others), count_suffixes(others))])
    return paths, labels


def _files_in(class_folder: Path, folder: Path, problems: Problems) -> Iterator[str]:
    def report(error: OSError) -> None:
        problems.add(UNREADABLE_FOLDER, f"{error.filename}: {error.strerror}")

    return walk_files(class_folder, folder, report)


def table_of_files(
    paths: Sequence[str],
    labels: Sequence[int],
    names: tuple[str, ...],
    problems: Problems,
    title: str,
    max_pixels: int = MAX_PIXELS,
) -> ClassTable:
    """Make a table of image files, without those that are missing or damaged.

    Args:
        paths: N absolute paths.
        labels: N class indices in [0, K).
        names: K class names.
        problems: added to; named in the error if there is no image.
        title: name of the split in messages.
        max_pixels: larger images cannot be used.

    Raises:
        InputError: there is no image that can be used.
    """
    if not paths:
        raise InputError(f"{title}: has no images; {'; '.join(problems.summary()) or 'its folders are empty'}")
    image_paths = np.array([path.encode("utf-8", "surrogateescape") for path in paths], np.bytes_)
    class_of_image = np.array(labels, np.int64)
    if len(paths) > MAX_INSPECTED:
        LOGGER.info("%s: %d images are too many to look at; damaged ones are reported when loaded", title, len(paths))
    else:
        undeclared = np.zeros((len(paths), 2), np.int64)
        _, is_good = inspect_images([Path(path) for path in paths], undeclared, problems, title, max_pixels=max_pixels)
        image_paths, class_of_image = image_paths[is_good], class_of_image[is_good]
    for label in np.flatnonzero(np.bincount(class_of_image, minlength=len(names)) == 0).tolist():
        problems.add(NO_IMAGES, repr(names[label]))
    return ClassTable(image_paths, class_of_image, names, problems=problems)


# ---------------------------------------------------------------------------------------------------- Tiny ImageNet


def read_tiny_imagenet(config: DataConfig, split: str) -> ClassTable:
    """Read a split of Tiny ImageNet; ``problems`` counts what is skipped: damaged lines and images, unknown classes.

    Classes are the WordNet ids (wnids) of ``wnids.txt``, in its order, named by their first word of ``words.txt``, with
    the wnid if several share it: ``crane (n02012849)``. With ``annotations``, that file has the classes of the
    images in ``images``; else they lie in ``images/<wnid>/images`` or ``images/<wnid>``. Test images have no labels.

    Raises:
        InputError: a file or folder is missing, a name leads out of its folder, or no image can be used.
    """
    problems = Problems()
    wnids = _read_wnids(find_file(config, WNIDS))
    folder = find_folder(config, config.splits[split].images).resolve()
    annotations = config.splits[split].annotations
    if annotations is None:
        paths, labels = list_images(folder, [_image_folder(folder, wnid) for wnid in wnids], problems)
    else:
        paths, labels = _read_annotations(find_file(config, annotations), folder, wnids, problems)
    return table_of_files(paths, labels, _names(config, wnids), problems, f"{config.name} {split}", config.max_pixels)


def read_lines(path: Path) -> list[str]:
    """Lines of a text file; ``InputError`` if it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def _read_wnids(path: Path) -> list[str]:
    wnids = [line.strip() for line in read_lines(path) if line.strip()]
    repeated = [wnid for wnid, count in Counter(wnids).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: has {repeated[0]!r} twice")
    if not wnids:
        raise InputError(f"{path}: lists no classes; it must have one WordNet id per line")
    return wnids


def _names(config: DataConfig, wnids: list[str]) -> tuple[str, ...]:
    path = Path(config.root) / WORDS
    if not path.is_file():
        LOGGER.info("%s: is not there, classes are called by their WordNet ids", path)
        return tuple(wnids)
    words = dict(line.split("\t", 1) for line in read_lines(path) if "\t" in line)
    first = [words.get(wnid, "").split(",")[0].strip() or wnid for wnid in wnids]
    counts = Counter(first)
    return tuple(f"{word} ({wnid})" if counts[word] > 1 else word for word, wnid in zip(first, wnids, strict=True))


def _image_folder(folder: Path, wnid: str) -> Path:
    class_folder = path_inside(folder, wnid, WNIDS)
    images = class_folder / "images"
    return images if images.is_dir() else class_folder


def _read_annotations(path: Path, folder: Path, wnids: list[str], problems: Problems) -> tuple[list[str], list[int]]:
    """Paths and class indices; a line is ``file``, ``wnid`` and the four sides of a box, with tabs between them."""
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    labels: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        name, wnid = [*(field.strip() for field in line.split("\t")), ""][:2]
        image_path = str(path_inside(folder, name, str(path))) if name else ""
        if not name or not wnid:
            problems.add(BAD_LINE, f"line {number} of {path.name}")
        elif wnid not in label_of:
            problems.add(UNKNOWN_WNID, f"{wnid!r} in line {number} of {path.name}")
        elif image_path in labels:
            problems.add(REPEATED_IMAGE, f"{name!r} in line {number} of {path.name}")
        else:
            labels[image_path] = label_of[wnid]
    return list(labels), list(labels.values())
