"""Common parts of recognising a format by its folders: names of splits, files side by side, files for many images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from detect.config.data import SplitConfig
from detect.data.folders import is_image_name

_SPLIT = re.compile(
    r"(train|training|val|valid|validation|test|testing|trainval|minitrain|test-dev|test-challenge)(?=$|\d|_)"
)
_LABEL_STUDIO = (b'"annotations"', b'"completions"', b'"predictions"')
_MIN = b'"annotation_id"'  # of Label Studio's JSON-MIN
_SNIFFED = 2**16  # bytes at either end of a file
_FOLDERS = ("images", "data", "jpegimages", "image", "imgs", "img")
_OURS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


def split_of(name: str) -> str | None:
    """Return the split of a name such as ``train2017`` or ``Validation``."""
    found = _SPLIT.match(name.lower())
    return None if found is None else _OURS.get(found[1], found[1])


def subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def sorted_splits(splits: dict[str, SplitConfig]) -> dict[str, SplitConfig]:
    """Sort splits: train, val, then the others by name."""
    return dict(sorted(splits.items(), key=lambda item: (item[0] != "train", item[0] != "val", item[0])))


def has_suffix(folder: Path, suffix: str) -> bool:
    return folder.is_dir() and any(path.suffix.lower() == suffix for path in folder.iterdir())


def side_by_side(folder: Path, suffix: str) -> dict[str, SplitConfig]:
    """Find folders in which files of a suffix lie beside images of their names, as Roboflow and labelme write them."""
    splits: dict[str, SplitConfig] = {}
    for path in (folder, *subfolders(folder)):
        names = list(path.iterdir()) if has_suffix(path, suffix) else []
        stems = {name.stem for name in names if name.suffix.lower() == suffix}
        if any(name.stem in stems and is_image_name(name.name) for name in names):
            inside = "." if path == folder else path.name
            splits[split_of_folder(path, folder)] = SplitConfig(inside, None if suffix == ".txt" else inside)
    return sorted_splits(splits)


def split_of_folder(path: Path, folder: Path) -> str:
    """Return the split of a folder in the data set's; CVAT prefixes it with ``obj_``."""
    name = path.name.lower().removeprefix("obj_").replace("validation", "valid")
    return "train" if path == folder else split_of(name) or path.name


def folders_beside(folder: Path, pairs: Sequence[tuple[str, str]], suffix: str) -> dict[str, SplitConfig]:
    """Find folders of images and of their annotation files, in the folder or in one folder per split.

    ``pairs`` are their names, such as ``("images", "annotations")``, and ``suffix`` that of the annotation files.
    """
    splits: dict[str, SplitConfig] = {}
    for path in (folder, *subfolders(folder)):
        inside = "" if path == folder else f"{path.name}/"
        for images, files in pairs:
            if (path / images).is_dir() and has_suffix(path / files, suffix):
                splits[split_of_folder(path, folder)] = SplitConfig(f"{inside}{images}", f"{inside}{files}")
    return sorted_splits(splits)


# ------------------------------------------------------------------------------------- files for many images


class FoundSplits(NamedTuple):
    """The annotation files of a folder that hold many images each.

    Args:
        splits: those whose images were found.
        left_out: a line with the reason for each other file.
    """

    splits: dict[str, SplitConfig]
    left_out: list[str]

    def add(self, folder: Path, split: str, path: Path, images: str | None) -> None:
        """Add the file of a split; ``images`` is the folder of its images relative to ``folder``, None without one."""
        if split in self.splits:
            self.left_out.append(f"{path}: left out: the split {split} has {self.splits[split].annotations} already")
        elif images is None:
            places = f"{path.stem}, {split}, images/{split} or images"
            self.left_out.append(f"{path}: left out: there is no folder of its images ({places})")
        else:
            self.splits[split] = SplitConfig(images, path.relative_to(folder).as_posix())


def find_label_files(
    folder: Path, suffixes: tuple[str, ...], is_one: Callable[[Path], bool], title: str
) -> FoundSplits:
    """Find the only file of a format in each split's folder, else in the folder itself, by its content.

    Several files in the folder itself must be named after their splits.

    Args:
        folder: the data set's.
        suffixes: of the files, such as ``.json``.
        is_one: tells by its content whether a file is of the format.
        title: of the format, for messages.
    """
    found = FoundSplits({}, [])
    for path in subfolders(folder):
        split = split_of(path.name)
        files = [file for file in files_with_suffix(suffixes, path) if is_one(file)] if split else []
        if split and len(files) == 1:
            inside = image_folder(path, split, split) or "."
            found.add(folder, split, files[0], f"{path.name}/{inside}" if inside != "." else path.name)
    if found.splits:
        return found
    files = [file for file in files_with_suffix(suffixes, folder / "annotations", folder) if is_one(file)]
    names = {split_of(file.stem) for file in files}
    if len(files) == 1:
        found.add(folder, "train", files[0], image_folder(folder, files[0].stem, "train"))
    elif files and None not in names and len(names) == len(files):
        for file in files:
            split = split_of(file.stem) or ""
            found.add(folder, split, file, image_folder(folder, file.stem, split))
    elif files:
        listed = ", ".join(file.relative_to(folder).as_posix() for file in files[:3])
        found.left_out.append(
            f"{folder}: has {len(files)} {title} files ({listed}); name the split of each in a data config"
        )
    return found


def image_folder(folder: Path, name: str, split: str) -> str | None:
    """Return the folder of a split's images relative to the data set's; ``.`` for the data set's folder itself.

    Args:
        folder: the data set's.
        name: of the annotation file without prefix and suffix.
        split: its split.
    """
    folders = [path for top in (folder, folder / "images") for path in subfolders(top)]
    by_name = {path.relative_to(folder).as_posix().lower(): path for path in reversed(folders)}
    wanted = [*(f"{inside}{one}".lower() for one in (name, split) for inside in ("", "images/"))]
    of_split = [path for path in folders if split_of(path.name) == split and _has_images(path)]
    usual = [by_name[one] for one in _FOLDERS if one in by_name]
    for path in [*(by_name[one] for one in wanted if one in by_name), *of_split, *usual]:
        return path.relative_to(folder).as_posix()
    return "." if _has_images(folder) else None


def files_with_suffix(suffixes: tuple[str, ...], *folders: Path) -> Iterator[Path]:
    for folder in folders:
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file())


def _has_images(folder: Path) -> bool:
    return any(is_image_name(path.name) for path in folder.iterdir())


# --------------------------------------------------------------------------------------- content at a glance


def ends_of(path: Path) -> bytes:
    """Return the first and last bytes of a file, which may be too large to be read twice; nothing if unreadable."""
    try:
        with path.open("rb") as file:
            content = file.read(_SNIFFED)
            file.seek(max(len(content), path.stat().st_size - _SNIFFED))
            content += file.read(_SNIFFED)
    except OSError:
        return b""
    return content.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")  # of UTF-16, and byte order marks


def json_tool(path: Path) -> Literal["label-studio", "labelme", "via"] | None:
    """Return the labelling tool that wrote a JSON file in its own form; None for any other file."""
    content = ends_of(path)
    if content.startswith(b"["):
        has_results = b'"result"' in content and any(key in content for key in _LABEL_STUDIO)
        return "label-studio" if has_results or b'"original_width"' in content or _MIN in content else None
    if b'"shapes"' in content and (b'"imagePath"' in content or b'"imageHeight"' in content):
        return "labelme"
    is_export = b'"filename"' in content and b'"regions"' in content
    return "via" if is_export or b'"_via_img_metadata"' in content else None
