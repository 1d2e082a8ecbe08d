"""Find the images that annotation files name, although another tool or machine wrote the names.

Exporters put a folder in front (``data/images/a.jpg``), Windows writes backslashes and drives, web tools write URLs and
``%20``, absolute paths are those of the machine where the data was labelled, and the case of letters may differ. No
name leads out of the data set.

``ImageFolder`` finds names that are relative to one folder (COCO), ``ImageList`` finds lines of a list that may be
relative to several folders and may lack a suffix (YOLO), ``find_image`` finds the image of an annotation file (VOC,
VisDrone).
"""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple
from urllib.parse import unquote

from detect.data.annotations import Problems, Understood
from detect.data.checks import inside
from detect.data.folders import is_image_name, walk_files
from detect.data.images import IMAGE_SUFFIXES
from detect.errors import is_path

NOT_AS_WRITTEN = "listed paths that are not there as written (the file of the data set with that end is taken)"
LEADS_OUT = "names that lead out of the data set (skipped)"

FOREIGN_NAME = Understood(
    "image names of another system or folder: backslashes, URLs, absolute paths (the image of that name taken)"
)
OUTSIDE_NAME = "image names that lead out of the images' folder, or that no file can have (skipped)"
AMBIGUOUS_NAME = (
    "image names of which only the end, or another case, is in the folder, where several mean one file (skipped)"
)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://[^/\\]*")
_LOCAL_FILES = "?d="  # Label Studio's /data/local-files/?d=images/a.jpg, below a folder of its server
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # in front of a name that was uploaded to Label Studio

_MAX_ENDS = 12  # folders of a path; each costs a system call

Reading = Literal["plain", "foreign", "likely", "missing", "outside"]


def path_forms(text: str) -> list[str]:
    """Return the forms of a path to try: as written, with slashes, unquoted, then each end of it, longest first.

    The ends are relative and do not climb: ``../data/a/b.jpg`` has ``data/a/b.jpg``, ``a/b.jpg`` and ``b.jpg``.
    """
    plain = text.replace("\\", "/")
    parts = [part for part in _decoded(text)[0].split("/") if part not in ("", ".", "..")][-_MAX_ENDS:]
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return list(dict.fromkeys([text, plain, unquote(plain), *ends]))


def suffix_forms(suffixes: tuple[str, ...]) -> Iterator[str]:
    for suffix in suffixes:
        yield from (suffix, suffix.upper())


def is_file(path: str | Path) -> bool:
    """Return False where ``Path.is_file`` raises: for names that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113


def find_image(folder: Path, stem: str, named: Sequence[str] = ()) -> Path:
    """Find the image of an annotation file: the one of its own stem, else the one that it names.

    The stem has precedence because tools that rename files do not update the names inside them. Where there is no such
    image, the path is that of ``<stem>.jpg``.

    Args:
        folder: absolute folder of the images.
        stem: of the annotation file, with ``/`` between folders.
        named: names and paths of the image in the annotation file; they may be of another machine.
    """
    own = os.path.normpath(folder / stem)
    forms = [path_forms(text) for text in named if text]
    for *_, name in forms:
        if is_named(stem, name) and is_file(beside := Path(own).with_name(name)):
            return beside
    others = [os.path.normpath(folder / form) for form in (*itertools.chain(*forms), Path(stem).name)]
    for path in (own, *(path for path in others if path.startswith(f"{folder}{os.sep}"))):
        for suffix in suffix_forms(IMAGE_SUFFIXES) if path == own else ("", *suffix_forms(IMAGE_SUFFIXES)):
            if is_file(path + suffix):
                return Path(path + suffix)
    return Path(own + ".jpg")


def is_named(stem: str, name: str) -> bool:
    """Tell whether a file name, with or without its suffix, is that of an annotation file."""
    own = PurePosixPath(stem).name
    return own in (name, PurePosixPath(name).stem)


# ------------------------------------------------------------------------------------------- lines of a list


class ImageList:
    """Finder of the images of a list.

    Args:
        folders: bases of relative lines, in order of precedence.
        allowed: folders that an image must be in; the last one is the images' own.
        problems: gets the paths found by their end, and those that lead out.
    """

    def __init__(self, folders: tuple[Path, ...], allowed: tuple[Path, ...], problems: Problems) -> None:
        self._folders, self._allowed, self._problems = folders, allowed, problems
        self._real = {Path(os.path.realpath(folder)): folder for folder in allowed}
        self._folder_of: dict[str, Path] = {}
        self._paths_of: dict[str, list[Path]] | None = None

    def find(self, line: str) -> Path | None:
        """Find the image of a line, or the path where it should be; None, counted, where that is outside."""
        candidates = [] if "\0" in line else [Path(os.path.normpath(folder / line)) for folder in self._folders]
        found = next((path for path in candidates if self._is_allowed(path) and is_file(path)), None)
        if found is not None:
            return found
        elsewhere = next(filter(is_file, candidates), None)
        if elsewhere is not None:  # it is not the one of the same end here
            found = self._through_link(elsewhere)
        else:
            found = self._by_end(line)
            if found is not None:
                self._problems.add(NOT_AS_WRITTEN, f"{line[:150]!r} is {found}")
            else:
                found = next(filter(self._is_allowed, reversed(candidates)), self._missing(line))
        if found is None:
            self._problems.add(LEADS_OUT, repr(line[:150]))
        return found

    def _missing(self, line: str) -> Path | None:
        """Return where the image of another machine would be; None for a path that climbs."""
        parts = line.replace("\\", "/").split("/")
        return None if ".." in parts or "\0" in line else self._allowed[-1] / parts[-1]

    def _is_allowed(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in self._allowed)

    def _through_link(self, path: Path) -> Path | None:
        """Return the path inside an allowed folder of a file that is written through a symbolic link."""
        real = Path(os.path.realpath(path))
        return next(
            (folder / real.relative_to(end) for end, folder in self._real.items() if real.is_relative_to(end)), None
        )

    def _by_end(self, line: str) -> Path | None:
        """Find the file whose path ends like the line; the last folder found for the same parent is tried first."""
        if "\0" in line:
            return None
        forms = path_forms(line)
        parent = line.replace("\\", "/").rpartition("/")[0]
        tried = [(self._folder_of[parent], forms[-1])] if parent in self._folder_of else []
        tried += [(folder, form) for form in forms[1:] or forms for folder in self._folders]
        found = next((path for folder, form in tried if (path := self._with_suffix(folder, form)) is not None), None)
        if found is None:
            return self._only_one_of_name(forms[-1])
        self._folder_of[parent] = found.parent
        return found

    def _only_one_of_name(self, name: str) -> Path | None:
        """Find the image by its name alone, if it is unique below the images' folder."""
        if self._paths_of is None:
            self._paths_of = {}
            for path in map(Path, walk_files(self._allowed[-1], self._allowed[-1], lambda _: None)):
                self._paths_of.setdefault(path.name, []).append(path)
        paths = self._paths_of.get(name, [])
        return paths[0] if len(paths) == 1 and is_image_name(name) else None

    def _with_suffix(self, folder: Path, form: str) -> Path | None:
        """Find the image of a path, trying each image suffix where it has none."""
        path = os.path.normpath(folder / form)
        suffixes = ("",) if path.lower().endswith(IMAGE_SUFFIXES) else tuple(suffix_forms(IMAGE_SUFFIXES))
        paths = (Path(path + suffix) for suffix in suffixes)
        return next((one for one in paths if self._is_allowed(one) and is_file(one)), None)


# ------------------------------------------------------------------------------------------ names in a folder


class FoundImage(NamedTuple):
    """The image of a name.

    Args:
        path: absolute; None if the name leads out of the data set.
        reading: ``plain``: as written. ``foreign``: written for another system or relative to another folder.
            ``likely``: only the end of an absolute path is in the folder, or the name in another case. ``missing``:
            not found. ``outside``: leads out of the data set.
    """

    path: Path | None
    reading: Reading


class ImageFolder:
    """Finder of the images of a folder by their names in an annotation file; lists each folder once.

    Args:
        folder: of the images.
        root: of the data set; absolute names inside it are valid.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder.resolve()
        self._root = Path(os.path.abspath(root))
        self._named_as = Path(os.path.abspath(folder))
        self._listings: dict[Path, set[str]] = {}
        self._by_case: dict[Path, dict[str, list[str]]] = {}

    def find(self, name: str) -> FoundImage:
        plain = inside(self._folder, name)
        if plain is not None and plain.name in self._listing(plain.parent):
            return FoundImage(plain, "plain")
        path, is_absolute = _decoded(name)
        own = None if is_absolute else inside(self._folder, path) or inside(self._named_as, path)
        if own is None and not is_absolute:
            return FoundImage(None, "outside")
        if not is_path(name) or not is_path(path):
            return FoundImage(plain, "missing" if plain else "outside")
        for candidate, reading in self._candidates(path, is_absolute, is_absolute or _LOCAL_FILES in name):
            there = self._there(candidate)
            if there is not None:
                return FoundImage(there, reading if there == candidate else "likely")
        missing = plain or own or inside(self._folder, path.rpartition("/")[2])
        return FoundImage(missing, "missing" if missing else "outside")

    def find_all(self, names: Sequence[str], problems: Problems) -> list[Path | None]:
        """Find the images of all names of an annotation file.

        Args:
            names: in any order.
            problems: gets the names that are not taken as written.

        Returns:
            A path for each name, also of a missing file; None for an unusable name.
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

    def _candidates(self, path: str, is_absolute: bool, is_foreign: bool) -> Iterator[tuple[Path | None, Reading]]:
        """Yield the files that a name with ``/`` may mean, the likeliest first; of ``is_foreign`` also its ends."""
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
            elif is_foreign:
                yield tail, "likely"
        if is_foreign and parts and _UPLOADED.match(parts[-1]):
            yield inside(self._folder, _UPLOADED.sub("", parts[-1], count=1)), "likely"

    def _in_data_set(self, path: str) -> Path | None:
        """Return the file of an absolute path that is inside the data set, by its name or through links."""
        file = Path(os.path.normpath(path))
        resolved = _resolved(file)
        is_named_so = file.is_relative_to(self._named_as) or file.is_relative_to(self._root)
        is_own = resolved.is_relative_to(self._folder) or resolved.is_relative_to(os.path.realpath(self._root))
        return resolved if is_named_so or is_own else None

    def _there(self, path: Path | None) -> Path | None:
        """Return the path if it exists, else the only file that differs in case or in Unicode normalisation."""
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
    """Return a name with ``/`` between folders, unquoted, without drive and host; and whether it is absolute."""
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
    """Resolve the links of the folder; the file itself may be one."""
    return Path(os.path.realpath(file.parent), file.name)


def _is_end(folder: Path, parts: list[str]) -> bool:
    ends = folder.parts[len(folder.parts) - len(parts) :] if parts else ()
    return bool(parts) and [part.casefold() for part in ends] == [part.casefold() for part in parts]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
