"""Names of images in annotation files, as tools on other machines write them, found in the folder of the images.

Backslashes of Windows, URLs and their escapes, absolute paths, a folder in front that is the images' own, and another
case of the letters are read as the image that they mean. A name never leads out of the data set.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote

from detect.config.base import is_path
from detect.data.annotations import Problems, Understood
from detect.data.checks import inside

FOREIGN_NAME = Understood(
    "image names of another system or folder: backslashes, URLs, absolute paths (the image of that name taken)"
)
OUTSIDE_NAME = "image names that lead out of the images' folder, or that no file can have (skipped)"
AMBIGUOUS_NAME = (
    "image names of which only the end, or another case, is in the folder, where several mean one file (skipped)"
)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://[^/\\]*")
_LOCAL_FILES = "?d="  # Label Studio's /data/local-files/?d=images/a.jpg

Reading = Literal["plain", "foreign", "likely", "missing", "outside"]


class FoundImage(NamedTuple):
    """The file that a name means.

    Args:
        path: absolute; None if the name leads out of the data set.
        reading: ``plain``: as written. ``foreign``: written for another system or relative to another folder.
            ``likely``: only the end of an absolute path is in the folder, or the name in another case. ``missing``:
            nowhere. ``outside``: it leads out.
    """

    path: Path | None
    reading: Reading


class ImageFolder:
    """A folder of images, in which those that an annotation file names are found. Each folder is listed once.

    Args:
        folder: of the images.
        root: of the data set; absolute names in it are the user's own.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder.resolve()
        self._root = Path(os.path.abspath(root))
        self._named_as = Path(os.path.abspath(folder))
        self._listings: dict[Path, set[str]] = {}
        self._by_case: dict[Path, dict[str, list[str]]] = {}

    def find(self, name: str) -> FoundImage:
        """The image of one name.

        Args:
            name: as an annotation file gives it, so not to be trusted.
        """
        plain = inside(self._folder, name)
        if plain is not None and plain.name in self._listing(plain.parent):
            return FoundImage(plain, "plain")
        path, is_absolute = _decoded(name)
        own = None if is_absolute else inside(self._folder, path) or inside(self._named_as, path)
        if own is None and not is_absolute:
            return FoundImage(None, "outside")
        if not is_path(name) or not is_path(path):
            return FoundImage(plain, "missing" if plain else "outside")
        for candidate, reading in self._candidates(path, is_absolute):
            there = self._there(candidate)
            if there is not None:
                return FoundImage(there, reading if there == candidate else "likely")
        missing = plain or own or inside(self._folder, path.rpartition("/")[2])
        return FoundImage(missing, "missing" if missing else "outside")

    def find_all(self, names: Sequence[str], problems: Problems) -> list[Path | None]:
        """The images of all names of an annotation file; None for those that cannot be used, which are counted.

        Args:
            names: in any order.
            problems: gets the names that were not taken as they are.
        """
        found = [self.find(name) for name in names]
        counts = Counter(one.path for one in found) if any(one.reading == "likely" for one in found) else {}
        paths: list[Path | None] = []
        for name, (path, reading) in zip(names, found, strict=True):
            is_ambiguous = reading == "likely" and counts[path] > 1
            if is_ambiguous:
                problems.add(AMBIGUOUS_NAME, repr(name))
            elif reading == "outside":
                problems.add(OUTSIDE_NAME, f"{name[:100]!r} leads out of the images' folder {self._folder}")
            elif reading in ("foreign", "likely"):
                problems.add(FOREIGN_NAME, f"{name!r} is {self._shown(path)}")
            paths.append(None if is_ambiguous else path)
        return paths

    def _candidates(self, path: str, is_absolute: bool) -> Iterator[tuple[Path | None, Reading]]:
        """Files that a name with ``/`` may mean, the likeliest first; None is nothing."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if is_absolute:
            yield self._in_data_set(path), "foreign"
        else:
            for folder in (self._folder, self._named_as, self._root):
                file = inside(folder, path)
                yield file and _resolved(file), "foreign"
        for count in range(0 if is_absolute else 1, len(parts)):
            tail = inside(self._folder, "/".join(parts[count:]))
            if _is_end(self._folder, parts[:count]) or _is_end(self._named_as, parts[:count]):
                yield tail, "foreign"
            elif is_absolute:
                yield tail, "likely"

    def _in_data_set(self, path: str) -> Path | None:
        """The file of an absolute path, if it is the data set's, by its name or through links."""
        file = Path(os.path.normpath(path))
        resolved = _resolved(file)
        is_named_so = file.is_relative_to(self._named_as) or file.is_relative_to(self._root)
        is_own = resolved.is_relative_to(self._folder) or resolved.is_relative_to(os.path.realpath(self._root))
        return resolved if is_named_so or is_own else None

    def _there(self, path: Path | None) -> Path | None:
        """The path if it is there, else the only file that differs from it in case or in the form of its accents."""
        if path is None or path.name in self._listing(path.parent):
            return path
        if path.parent not in self._by_case:
            by_case: dict[str, list[str]] = {}
            for name in self._listing(path.parent):
                by_case.setdefault(_folded(name), []).append(name)
            self._by_case[path.parent] = by_case
        alike = self._by_case[path.parent].get(_folded(path.name), [])
        return path.parent / alike[0] if len(alike) == 1 else None

    def _listing(self, folder: Path) -> set[str]:
        if folder not in self._listings:
            try:
                self._listings[folder] = set(os.listdir(folder))  # noqa: PTH208 (names, of a million files)
            except (OSError, ValueError):
                self._listings[folder] = set()
        return self._listings[folder]

    def _shown(self, path: Path | None) -> str:
        assert path is not None, "a name that was read has a path"
        return path.relative_to(self._folder).as_posix() if path.is_relative_to(self._folder) else str(path)


def _decoded(name: str) -> tuple[str, bool]:
    """A name with ``/`` between folders and without URL escapes, drive and host; and whether it is absolute."""
    is_absolute = False
    if _LOCAL_FILES in name:
        name = name.partition(_LOCAL_FILES)[2]
    scheme = _SCHEME.match(name)
    if scheme:
        name, is_absolute = re.split(r"[?#]", name[scheme.end() :])[0], True
    if "%" in name:
        name = unquote(name, errors="surrogateescape")
    name = name.replace("\\", "/")
    drive = re.match(r"/?[A-Za-z]:", name)
    if drive:
        name, is_absolute = name[drive.end() :], True
    return name, is_absolute or name.startswith("/")


def _resolved(file: Path) -> Path:
    """The file in its folder without links; the file may be one itself."""
    return Path(os.path.realpath(file.parent), file.name)


def _is_end(folder: Path, parts: list[str]) -> bool:
    """Tell whether a folder's path ends with these parts, whatever their case."""
    ends = folder.parts[len(folder.parts) - len(parts) :] if parts else ()
    return bool(parts) and [part.casefold() for part in ends] == [part.casefold() for part in parts]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
