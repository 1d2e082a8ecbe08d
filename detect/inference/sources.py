"""Sources of ``--source`` and ``Detector.stream``: images, videos, cameras and streams, alone or together."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from detect.data.animations import count_frames
from detect.data.folders import count_suffixes
from detect.data.images import IMAGE_SUFFIXES, is_image_file
from detect.errors import InputError
from detect.inference.inputs import ImageSource, Source, is_list
from detect.inference.video import is_video_file
from detect.runtime.logs import LOGGER

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".avi", ".divx", ".mkv", ".webm", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob"),
    *(".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".ogm", ".mts", ".m2ts", ".ts", ".m2t", ".mxf", ".dv"),
    *(".dav", ".rm", ".rmvb", ".y4m", ".mjpg", ".mjpeg", ".h264", ".264", ".h265", ".265", ".hevc", ".nut", ".ivf"),
)
"""Suffixes, lower case, of the videos that folders are searched for; OpenCV's FFmpeg decides by the content."""

_STREAM = re.compile(r"(?:rtsps?|https?)://", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/?#]*@")


StreamSource: TypeAlias = ImageSource | int | Source
"""An ``ImageSource``, a video, folder, pattern, ``.txt`` list or address as text, or the number of a camera."""


def expand_sources(source: StreamSource | Sequence[StreamSource]) -> list[Source]:
    """Find the sources that ``source`` names: at least one, each once, in its order, sorted within a folder or pattern.

    It is a file with an image or a video; a folder, searched with its subfolders but without hidden files; a glob
    pattern (``**`` crosses folders); a ``.txt`` file with one of these a line, relative to it, or a ``#`` comment;
    an ``rtsp://`` or ``http://`` address; the number of a camera; a (H, W, 3) uint8 RGB array; a PIL image; or a list
    of these. ``InputError`` if a part of it names nothing that is there.
    """
    parts: list[Any] = list(source) if is_list(source) else [source]
    if not parts:
        raise InputError("source: is an empty list; name an image, a video, a folder or a pattern")
    found: dict[str, Source] = {}
    for number, part in enumerate(parts):
        for each in _expand(part, number):
            found.setdefault(each.name, each)
    return list(found.values())


def image_paths(sources: Sequence[Source]) -> list[Path]:
    """Return the files of images and animations; raise ``InputError`` for any other source."""
    for source in sources:
        if source.kind not in ("still", "animation"):
            raise InputError(f"source {source.name}: only detectors take videos; name images, such as 'folder/*.jpg'")
    return [source.path for source in sources if source.path is not None]


def _expand(part: Any, number: int) -> Iterator[Source]:
    """Sources of one part, the ``number``-th of its list."""
    if isinstance(part, Source):
        yield part
    elif isinstance(part, (str, Path)):
        yield from _named(str(part))
    elif isinstance(part, int):
        yield Source(f"camera {part}", "live", part)
    elif isinstance(part, (np.ndarray, Image.Image)):
        yield Source(f"image {number}", "still", part)
    else:
        raise InputError(f"source: must be a path, an address, a camera's number or an image, found {part!r:.80}")


def _named(part: str, base: Path = Path(), where: str = "source") -> Iterator[Source]:
    """Sources that a text names; paths are relative to ``base``, errors begin with ``where``."""
    if _STREAM.match(part):
        yield Source(_LOGIN.sub("", part), "live", part)
        return
    path = base / Path(part).expanduser()
    if path.is_file():
        yield from _listed(path) if path.suffix.lower() == ".txt" else [_in_file(path)]
    elif path.is_dir():
        yield from map(_in_file, _files_below(path, f"{where} {part}"))
    elif part.isdecimal():
        yield Source(f"camera {int(part)}", "live", int(part))
    elif glob.has_magic(part):
        pattern = Path(glob.escape(str(base))) / Path(part).expanduser()
        yield from map(_in_file, _matches(str(pattern), f"{where} {part}"))
    else:
        raise InputError(f"{where} {part}: no such file or folder")


def _in_file(path: Path) -> Source:
    """Source of a file, by its suffix; by its content where the suffix is unknown."""
    if count_frames(path) > 1:
        return Source(str(path), "animation", path)
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return Source(str(path), "still", path)
    is_video = suffix in VIDEO_SUFFIXES or (not is_image_file(path) and is_video_file(path))
    return Source(str(path), "file" if is_video else "still", path)


def _listed(path: Path) -> Iterator[Source]:
    """Sources in the lines of a text file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"source {path}: is not UTF-8 text; a .txt file lists one path a line") from None
    named = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    named = [(number, line) for number, line in named if not line.startswith("#")]
    if not named:
        raise InputError(f"source {path}: lists nothing; a .txt file has one path a line")
    for number, line in named:
        if line.lower().endswith(".txt"):
            raise InputError(f"source {path}:{number}: {line}: a list may not name another one")
        yield from _named(line, path.parent, f"source {path}:{number}:")


def _matches(pattern: str, where: str) -> list[Path]:
    try:
        matches = sorted({Path(match) for match in _glob(pattern)})
    except ValueError:  # a zero byte
        matches = []
    found = [match for match in matches if match.is_file() and _is_wanted(match.name)]
    if not found:
        what = f"matches {len(matches)} files or folders, but no image or video" if matches else "matches no file"
        raise InputError(f"{where}: the pattern {what}; quote patterns, so that the shell leaves them alone")
    _report_left_out([match for match in matches if match.is_file() and not _is_wanted(match.name)], where)
    return found


def _glob(pattern: str) -> Iterator[str]:
    """Paths of ``glob.glob(pattern, recursive=True)``, but ``**`` follows no links, which may lead in circles."""
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from glob.glob(pattern)
        return
    place = parts.index("**")
    behind = parts[place + 1 :] or ("*",)
    for top in glob.glob(str(Path(*parts[:place]))) if place else ["."]:
        for folder, folders, _ in os.walk(top):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from _glob(str(Path(glob.escape(folder), *behind)))


def _files_below(folder: Path, where: str) -> list[Path]:
    """Images and videos of a folder, sorted; other files are counted by their suffix in one line of the log."""
    found: list[Path] = []
    left_out: list[Path] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                (found if _is_wanted(name) else left_out).append(Path(parent, name))
    if not found:
        only = f"; it has {', '.join(count_suffixes(left_out))}" if left_out else ""
        raise InputError(f"{where}: the folder holds no image and no video ({_suffixes()}){only}")
    _report_left_out(left_out, where)
    return sorted(found)


def _report_left_out(files: Sequence[Path], where: str) -> None:
    if files:
        others = ", ".join(count_suffixes(files))
        LOGGER.info("%s: left out, no images or videos by their suffix: %s; name a file to use it", where, others)


def _is_wanted(name: str) -> bool:
    return Path(name).suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)


def _suffixes() -> str:
    return ", ".join(sorted((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)))
