"""Files of a detector's prediction run: drawn images and videos, tables of detections (JSON, CSV), text files, crops,
frames.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from detect.data.images import write_image
from detect.inference.inputs import Source
from detect.inference.rows import LABEL_PLACES, Add, csv_table, json_array, to_entries, to_txt
from detect.inference.stream import FoundFrame
from detect.inference.video import SUFFIXES, video_suffix, writing_video
from detect.runtime.distributed import all_gather_texts, barrier, is_main_process, num_processes
from detect.runtime.files import write_text
from detect.safety.ownership import OutputFolder

if TYPE_CHECKING:
    from detect.inference.labels import LabelWriter

_MAX_NAME = 200
"""Bytes of a folder's name; file systems allow 255."""


@dataclass(frozen=True)
class OutputOptions:
    """Files beside the drawn images and videos. Of a video, ``<image>`` is ``<video>/<number of the frame>``.

    Args:
        json: ``predictions.json``, all detections of all images and frames (``to_entries``).
        csv: ``predictions.csv``, the same as a table.
        txt: ``labels/<image>.txt``, a line ``class cx cy w h score`` per detection, as shares of the image's width and
            height.
        crops: ``crops/<class>/<image>-<number>.jpg``, each detection cut out.
        frames: ``frames/<image>.jpg``, the frames of videos without drawing.
        labels: a key of ``LABEL_PLACES``: label files to be corrected in a labelling tool, see ``inference.labels``.
        model: name of the model in them.
    """

    json: bool = False
    csv: bool = False
    txt: bool = False
    crops: bool = False
    frames: bool = False
    labels: str | None = None
    model: str = ""


class PredictionWriter:
    """Writer of the results of a run, a context; the files are complete when it ends, for whatever reason.

    Of several processes each writes its own images and videos, and the main one the tables of all.

    Args:
        folder: place of the files; made with the first one.
        sources: all those of the run. Files are named after their paths below their common folder.
        options: files beside the drawn images and videos.

    Raises:
        InputError: something would be replaced that is not from an earlier run, an image of ``sources`` for example.
    """

    def __init__(self, folder: Path, sources: Sequence[Source], options: OutputOptions) -> None:
        self._folder = OutputFolder(folder)
        self._sources = {source.name: source for source in sources}
        self._options = options
        self._names = source_names(sources)
        self._folder.check(self._places(), [source.path for source in sources if source.path])
        self._open = ExitStack()
        self._video = self._open.enter_context(ExitStack())
        self._tables: list[Add] | None = None
        self._kept: list[dict[str, Any]] = []
        self._labels = None if options.labels is None else self._label_writer(options.labels)
        self._current_video: str | None = None
        barrier("the start of the predictions")  # each process has checked the folder before any writes

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._write_kept()
        if self._labels is not None and (error is None or num_processes() == 1):
            self._labels.finish(list(self._sources))
        self._open.close()

    def add(self, found: FoundFrame) -> np.ndarray:
        """Write the files of one image, or of the next frame of a video.

        Returns:
            The drawing, (H, W, 3) uint8 RGB.
        """
        drawn = found.detections.plot(found.image_rgb)
        name, suffix = self._names[found.source], ".jpg"
        path = self._sources[found.source].path
        if found.clip is None:
            suffix = path.suffix if path else suffix
            write_image(self._folder.claim(f"{name}.jpg"), drawn)
        else:
            self._add_to_video(found, drawn)
            name = f"{name}{path.suffix if path else ''}/{found.index:06d}"
            if self._options.frames:
                write_image(self._folder.claim("frames/") / f"{name}.jpg", found.image_rgb)
        if self._labels is not None:
            self._labels.add(found.source, name, suffix, found.detections)
        if self._options.txt and self._options.labels != "yolo":
            write_text(self._folder.claim("labels/") / f"{name}.txt", to_txt(found.detections))
        if self._options.crops:
            self._write_crops(name, found)
        if num_processes() > 1:
            self._kept += to_entries(found)
        else:
            self._write_entries(to_entries(found))
        return drawn

    def summary(self) -> list[str]:
        """Places of the files, one line each."""
        is_video = [source.kind != "still" for source in self._sources.values()]
        wanted = {
            f"drawn images: {self._folder.path}": not all(is_video),
            f"drawn videos: {self._folder.path}": any(is_video),
            f"all detections: {self._folder.path / 'predictions.json'}": self._options.json,
            f"table of all detections: {self._folder.path / 'predictions.csv'}": self._options.csv,
            f"text files: {self._folder.path / 'labels'}": self._options.txt and self._options.labels != "yolo",
            f"labels: {self._folder.path / LABEL_PLACES.get(self._options.labels or '', ('',))[0]}": bool(
                self._options.labels
            ),
            f"crops: {self._folder.path / 'crops'}": self._options.crops,
            f"frames: {self._folder.path / 'frames'}": self._options.frames and any(is_video),
        }
        return [line for line, is_wanted in wanted.items() if is_wanted]

    def _places(self) -> list[str]:
        """Files of the run below the folder, in the order of writing."""
        places = [
            f"{self._names[name]}{suffix}"
            for name, source in self._sources.items()
            for suffix in ((".jpg",) if source.kind == "still" else SUFFIXES)
        ]
        wanted = {
            "frames/": self._options.frames,
            "labels/": self._options.txt,
            "crops/": self._options.crops,
            "predictions.json": self._options.json,
            "predictions.csv": self._options.csv,
        }
        wanted |= dict.fromkeys(LABEL_PLACES.get(self._options.labels or "", ()), True)
        return places + [place for place, is_wanted in wanted.items() if is_wanted]

    def _label_writer(self, form: str) -> LabelWriter:
        from detect.inference.labels import LabelWriter  # formats take time to import, which most runs can spare

        return LabelWriter(self._folder, form, self._options.model, self._options.txt)

    def _write_kept(self) -> None:
        """Write the tables of all processes in the main one, in the order of the sources."""
        if num_processes() == 1 or not (self._options.json or self._options.csv):
            return
        parts = all_gather_texts(json.dumps(self._kept))
        if is_main_process():
            entries = [entry for part in parts for entry in json.loads(part)]
            place = {name: number for number, name in enumerate(self._sources)}
            self._write_entries(sorted(entries, key=lambda entry: place[entry["file_name"]]))

    def _write_entries(self, entries: list[dict[str, Any]]) -> None:
        for add in self._opened_tables():
            for entry in entries:
                add(entry)

    def _opened_tables(self) -> list[Add]:
        if self._tables is None:
            kinds = (
                ("predictions.json", self._options.json, json_array),
                ("predictions.csv", self._options.csv, csv_table),
            )
            self._tables = [
                self._open.enter_context(table(self._folder.claim(place)))
                for place, is_wanted, table in kinds
                if is_wanted
            ]
        return self._tables

    def _add_to_video(self, found: FoundFrame, drawn: np.ndarray) -> None:
        assert found.clip is not None, "it is a frame of a video"
        if found.source != self._current_video:
            self._video.close()
            image_hw = (drawn.shape[0], drawn.shape[1])
            path = self._folder.claim(f"{self._names[found.source]}{video_suffix(image_hw)}")
            self._write_frame = self._video.enter_context(writing_video(path, image_hw, found.clip.fps))
            self._current_video = found.source
        self._write_frame(drawn, found.time_s if found.clip.is_live else None)

    def _write_crops(self, name: str, found: FoundFrame) -> None:
        boxes, class_names = found.detections.boxes_xyxy_px, found.detections.class_names
        for number, (box, class_name) in enumerate(zip(boxes, class_names, strict=True)):
            left, top = np.floor(box[:2]).astype(int)
            right, bottom = np.ceil(box[2:]).astype(int)
            crop = found.image_rgb[top:bottom, left:right]
            write_image(self._folder.claim("crops/") / file_name(class_name) / f"{name}-{number}.jpg", crop)


def source_names(sources: Sequence[Source]) -> dict[str, str]:
    """Name of the outputs of each source: files as in ``output_names``, others after their addresses."""
    paths = output_names([source.path for source in sources if source.path])
    taken = {name.casefold() for name in paths.values()}
    names = {}
    for source in sources:
        stem = file_name(source.name.split("://", 1)[-1])
        names[source.name] = paths[source.path] if source.path else _free_name(stem, taken)
    return names


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Unique name of the outputs of each image: its path below the common folder, without suffix.

    Where two images differ in their suffix only (``a.jpg``, ``a.png``), or in upper and lower case, which not every
    file system distinguishes, the later ones are numbered (``a-2``).
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    common = Path(os.path.commonpath([path.parent for path in absolute])) if paths else Path()
    taken: set[str] = set()
    names = {}
    for path, full in zip(paths, absolute, strict=True):
        stem = full.relative_to(common).with_suffix("").as_posix()
        names[path] = _free_name(stem, taken)
    return names


def _free_name(stem: str, taken: set[str]) -> str:
    """``stem``, with a number if it is ``taken``; added to ``taken``."""
    name, number = stem, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.casefold())
    return name


def file_name(class_name: str) -> str:
    """Turn a class name into a folder's name that every file system allows."""
    safe = re.sub(r'[<>:"/\\|?*]', "_", "".join(c if c.isprintable() else "_" for c in class_name)).strip(". ")[:64]
    return safe.encode("utf-8")[:_MAX_NAME].decode("utf-8", "ignore") or "_"
