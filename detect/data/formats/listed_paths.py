"""Paths that another tool or another machine wrote, found among the files of this data set.

Exporters put a folder in front (``data/images/a.jpg``), Windows has backslashes and drives, web tools write ``%20``,
and absolute paths are those of the machine where the data was labelled. What stays the same is the end of the path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from detect.data.annotations import Problems
from detect.data.images import IMAGE_SUFFIXES
from detect.data.walking import is_image_name, walk_files

NOT_AS_WRITTEN = "listed paths that are not there as written (the file of the data set with that end is taken)"
LEADS_OUT = "names that lead out of the data set (skipped)"

_MAX_ENDS = 12  # folders of a path; each costs a look at the disk


def path_forms(text: str) -> list[str]:
    """Forms of a path, the most literal first: as written, with slashes, decoded, then each end of it, longest first.

    The ends are relative and do not climb: ``../data/a/b.jpg`` has ``data/a/b.jpg``, ``a/b.jpg`` and ``b.jpg``.
    """
    plain = text.replace("\\", "/")
    decoded = unquote(plain) if "%" in plain else plain
    parts = [part for part in decoded.split("/") if part not in ("", ".", "..")][-_MAX_ENDS:]
    return list(dict.fromkeys([text, plain, decoded, *("/".join(parts[start:]) for start in range(len(parts)))]))


def suffix_forms(suffixes: tuple[str, ...]) -> Iterator[str]:
    """Each suffix in lower and in upper case."""
    for suffix in suffixes:
        yield from (suffix, suffix.upper())


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; False for a name that cannot be one, where ``Path.is_file`` has an error."""
    return os.path.isfile(path)  # noqa: PTH113


class ImageList:
    """The images that the lines of a list name.

    Args:
        folders: a line may be relative to each of them, the first first.
        allowed: the folders that an image must be in, the images' own last.
        problems: gets paths that were found by their end, and those that lead out.
    """

    def __init__(self, folders: tuple[Path, ...], allowed: tuple[Path, ...], problems: Problems) -> None:
        self._folders, self._allowed, self._problems = folders, allowed, problems
        self._real = {Path(os.path.realpath(folder)): folder for folder in allowed}
        self._folder_of: dict[str, Path] = {}
        self._paths_of: dict[str, list[Path]] | None = None

    def find(self, line: str) -> Path | None:
        """The image of a line, there or not; None, counted, where it leads out of the data set."""
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
        """Where an image of another machine would be; None for a path that climbs."""
        parts = line.replace("\\", "/").split("/")
        return None if ".." in parts or "\0" in line else self._allowed[-1] / parts[-1]

    def _is_allowed(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in self._allowed)

    def _through_link(self, path: Path) -> Path | None:
        """The path, below an allowed folder, of a file that is written through a symbolic link."""
        real = Path(os.path.realpath(path))
        return next(
            (folder / real.relative_to(end) for end, folder in self._real.items() if real.is_relative_to(end)), None
        )

    def _by_end(self, line: str) -> Path | None:
        """The file whose path ends like the line; where the last line of its folder was found is tried first."""
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
        """The image of this name below the images' folder, if no other one there has it."""
        if self._paths_of is None:
            self._paths_of = {}
            for path in map(Path, walk_files(self._allowed[-1], self._allowed[-1], lambda _: None)):
                self._paths_of.setdefault(path.name, []).append(path)
        paths = self._paths_of.get(name, [])
        return paths[0] if len(paths) == 1 and is_image_name(name) else None

    def _with_suffix(self, folder: Path, form: str) -> Path | None:
        """The image of a path or, where it has no image's suffix, of that path with one."""
        path = os.path.normpath(folder / form)
        suffixes = ("",) if path.lower().endswith(IMAGE_SUFFIXES) else tuple(suffix_forms(IMAGE_SUFFIXES))
        paths = (Path(path + suffix) for suffix in suffixes)
        return next((one for one in paths if self._is_allowed(one) and is_file(one)), None)
