"""Tiny ImageNet as it is distributed: class folders for training, one list of annotations for validation.

Classes are WordNet ids (wnids, ``n01443537``). The test images were published without labels and cannot be read.

Letters: N images, K classes.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from detect.config.data import DataConfig
from detect.data.annotations import Problems
from detect.data.checks import find_file, find_folder, path_inside
from detect.data.classification.image_folders import list_images, table_of_files
from detect.data.classification.table import ClassTable
from detect.errors import InputError
from detect.runtime.logs import LOGGER

WNIDS, WORDS = "wnids.txt", "words.txt"

BAD_LINE = "lines of annotations that do not have a file and a class (skipped)"
UNKNOWN_WNID = "images of a class that is not in wnids.txt (skipped)"
REPEATED_IMAGE = "images that stand before in the annotations (skipped)"


def read_tiny_imagenet(config: DataConfig, split: str) -> ClassTable:
    """Read one split.

    Classes are those of ``wnids.txt`` in its order. A class is called by the first word that ``words.txt`` has for it,
    with the wnid behind it where several classes share the word: ``goldfish``, ``crane (n02012849)``. Damaged lines,
    unknown classes and missing or damaged images are skipped and counted in the table's ``problems``.

    Args:
        config: the data set.
        split: a key of ``config.splits``. With ``annotations``, that file says what the images in ``images`` show;
            without, they lie in ``images/<wnid>/images``, or in ``images/<wnid>``.

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


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def _read_wnids(path: Path) -> list[str]:
    wnids = [line.strip() for line in _read_lines(path) if line.strip()]
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
    words = dict(line.split("\t", 1) for line in _read_lines(path) if "\t" in line)
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
    for number, line in enumerate(_read_lines(path), start=1):
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
