"""The annotations of a split in flat arrays, whatever format they were read from.

Letters: N images, M boxes of all images together, m boxes of one image, K classes.

Arrays instead of lists of dictionaries: reading a Python object changes its reference count, so every worker process
would slowly copy every page of them; arrays stay shared.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detect.boxes.convert import xyxy_to_xywh
from detect.data.formats.shard_images import ShardImages, StoredImage
from detect.data.images import decode_image
from detect.data.pixel_values import PLAIN, ReadSettings
from detect.drawing.text import shorten
from detect.runtime.logs import decoder_warnings

MARKS = ("truncated", "occluded")
"""Names of ``AnnotationTable.marks``."""

_NUM_EXAMPLES = 3
_MAX_EXAMPLE = 400
"""Characters of an example: names in annotation files may have any length."""


class Understood(str):
    """A kind of problem that is none: other tools write so, and it was read as it is meant."""

    __slots__ = ()


class Problems:
    """What was wrong in a data set: for each kind its count and its first examples."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, kind: str, example: str) -> None:
        """Count one more problem.

        Args:
            kind: what is wrong and what was done about it, such as "boxes without area (skipped)".
            example: where, in a few words.
        """
        self._counts[kind] = self._counts.get(kind, 0) + 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _NUM_EXAMPLES:
            examples.append(shorten(example, _MAX_EXAMPLE))

    def count(self, kind: str) -> int:
        """How many problems of the kind there were."""
        return self._counts.get(kind, 0)

    def found(self) -> list[tuple[str, int, tuple[str, ...]]]:
        """Each kind with its count and its first examples, in the order in which the kinds came up."""
        return [(kind, count, tuple(self._examples[kind])) for kind, count in self._counts.items()]

    def merge(self, found: Iterable[tuple[str, int, Sequence[str]]]) -> None:
        """Count what ``found`` of others gave."""
        for kind, count, examples in found:
            self._counts[kind] = self._counts.get(kind, 0) + count
            mine = self._examples.setdefault(kind, [])
            mine += examples[: _NUM_EXAMPLES - len(mine)]

    def summary(self) -> list[str]:
        """One line for each kind, with its count and up to three examples."""
        return list(self.lines().values())

    def lines(self) -> dict[str, str]:
        """Each kind with its line in the summary."""
        return {kind: f"{count} {kind}: {self._shown(kind, count)}" for kind, count in self._counts.items()}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def _shown(self, kind: str, count: int) -> str:
        return "; ".join(self._examples[kind]) + ("; ..." if count > _NUM_EXAMPLES else "")


@dataclass(frozen=True)
class AnnotationTable:
    """A split: its images and their boxes.

    Args:
        image_paths: (N,) bytes (dtype S), absolute paths in UTF-8; ``path`` decodes one.
        image_ids: (N,) int64, each image's id.
        has_own_ids: the ids come from the annotation file (COCO); otherwise they are 1..N.
        sizes_hw: (N, 2) int32, height and width of each image, EXIF orientation applied.
        box_offsets: (N + 1,) int64; image ``row`` has the boxes ``box_offsets[row]`` to ``box_offsets[row + 1]``.
        boxes_xyxy_px: (M, 4) float64, original-image pixels as annotated: they may stick out of the image a little.
        labels: (M,) int64 class index in [0, K).
        is_crowd: (M,) bool; such a region is not trained on, and detections in it count neither as right nor as wrong.
        areas: (M,) float64, pixels: the annotation's own ``area`` (in COCO of the segmentation), else width * height.
        names: the K class names.
        category_ids: (K,) int64, the classes' ids in the annotation file.
        is_labelled: False for a split that was published without annotations.
        problems: everything that was reported while reading.
        boxes_xywh_px: (M, 4) float64, left, top, width, height to the last bit as in the file, if it has them so.
        marks: (M,) int8 each, by a name of ``MARKS``, where the file says such a thing of any box. 0 is no; VisDrone
            knows degrees. Training and evaluation do not look at them.
        positions: (M,) int64, each box's place in the list ``annotations`` of a COCO file; else None.
        skipped_paths: (S,) as ``image_paths``, images that the annotations name and that cannot be used.
        image_ids_json: (N,) bytes, each image's id as the file has it, in JSON, if they are no such numbers (text,
            beyond 64 bits); ``image_ids`` then stand for them.
        category_ids_json: (K,) bytes, likewise of the classes.
        shards: where in shards the images lie (``detect.data.formats.shards``), whose paths then are the shard's
            with the image's name behind it; None: each image is a file of its own.
        read_settings: how the files become pixels.
    """

    image_paths: np.ndarray
    image_ids: np.ndarray
    has_own_ids: bool
    sizes_hw: np.ndarray
    box_offsets: np.ndarray
    boxes_xyxy_px: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray
    areas: np.ndarray
    names: tuple[str, ...]
    category_ids: np.ndarray
    is_labelled: bool = True
    problems: Problems = dataclasses.field(default_factory=Problems)
    boxes_xywh_px: np.ndarray | None = None
    marks: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    positions: np.ndarray | None = None
    skipped_paths: np.ndarray = dataclasses.field(default_factory=lambda: encode_paths([]))
    image_ids_json: np.ndarray | None = None
    category_ids_json: np.ndarray | None = None
    shards: ShardImages | None = None
    read_settings: ReadSettings = PLAIN

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, row: int) -> Path:
        """The file of image ``row``."""
        return Path(self.image_paths[row].decode("utf-8", "surrogateescape"))

    def read_bytes(self, row: int) -> bytes:
        """The content of image ``row``'s file, however it is kept.

        Raises:
            ImageError: it cannot be read.
        """
        image = self.stored(row)
        return image.read(self.read_settings.max_pixels) if self.shards is None else self.shards.read(image)

    def stored(self, row: int) -> StoredImage:
        """Where the content of image ``row`` is."""
        if self.shards is None:
            return StoredImage(self.path(row))
        return StoredImage(self.path(row), self.shards.file(row), *self.shards.spans[row].tolist())

    def num_bytes(self, row: int) -> int:
        """How much ``read_bytes`` gives."""
        return self.path(row).stat().st_size if self.shards is None else int(self.shards.spans[row, 1])

    def read(self, row: int) -> np.ndarray:
        """Image ``row``, (H, W, 3) uint8 RGB.

        Raises:
            ImageError: it cannot be read.
        """
        with decoder_warnings(self.path(row)):
            return decode_image(self.read_bytes(row), str(self.path(row)), self.read_settings)

    def stored_in(self, row: int) -> Path:
        """The file on the disk that image ``row`` is in."""
        return self.path(row) if self.shards is None else self.shards.file(row)

    def boxes(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ground truth of image ``row``.

        Returns:
            boxes_xyxy_px (m, 4) float64, labels (m,) int64, is_crowd (m,) bool; views, not copies.
        """
        here = slice(self.box_offsets[row], self.box_offsets[row + 1])
        return self.boxes_xyxy_px[here], self.labels[here], self.is_crowd[here]

    def without_background(self) -> AnnotationTable:
        """The split without the images that have nothing to train on (no box, or only crowd regions).

        Images whose only boxes are crowd regions go with them: their content is not background, it is unknown.
        """
        return self.select(np.bincount(self.image_of_box[~self.is_crowd], minlength=len(self)) > 0)

    @property
    def image_of_box(self) -> np.ndarray:
        """(M,) int64 row of each box's image."""
        return np.repeat(np.arange(len(self)), np.diff(self.box_offsets))

    def select(self, keep: np.ndarray) -> AnnotationTable:
        """The images where ``keep`` (N,) bool is True, with their boxes."""
        keep_box = keep[self.image_of_box]
        return dataclasses.replace(
            self,
            image_paths=self.image_paths[keep],
            image_ids=self.image_ids[keep],
            sizes_hw=self.sizes_hw[keep],
            box_offsets=offsets_of(np.diff(self.box_offsets)[keep]),
            boxes_xyxy_px=self.boxes_xyxy_px[keep_box],
            labels=self.labels[keep_box],
            is_crowd=self.is_crowd[keep_box],
            areas=self.areas[keep_box],
            boxes_xywh_px=None if self.boxes_xywh_px is None else self.boxes_xywh_px[keep_box],
            marks={name: values[keep_box] for name, values in self.marks.items()},
            positions=None if self.positions is None else self.positions[keep_box],
            image_ids_json=None if self.image_ids_json is None else self.image_ids_json[keep],
            shards=None if self.shards is None else self.shards.select(keep),
        )

    def with_box_areas(self) -> AnnotationTable:
        """The split with width * height as the areas."""
        return dataclasses.replace(self, areas=self.exact_xywh_px[:, 2:].prod(axis=1))

    @property
    def image_ids_of_file(self) -> list[Any]:
        """N ids as JSON values of the annotation file."""
        return [*map(self.image_id_of_file, range(len(self)))]

    def image_id_of_file(self, row: int) -> Any:
        """The id of image ``row`` as the JSON value of the annotation file."""
        return int(self.image_ids[row]) if self.image_ids_json is None else json.loads(self.image_ids_json[row])

    @property
    def category_ids_of_file(self) -> list[Any]:
        """K ids as JSON values of the annotation file."""
        if self.category_ids_json is None:
            return self.category_ids.tolist()
        return [*map(json.loads, self.category_ids_json)]

    @property
    def exact_xywh_px(self) -> np.ndarray:
        """(M, 4) float64 left, top, width, height: as in the file where it has them so."""
        if self.boxes_xywh_px is not None:
            return self.boxes_xywh_px
        return xyxy_to_xywh(self.boxes_xyxy_px)

    def to_coco(self) -> dict[str, Any]:
        """The split in COCO's format, as pycocotools takes it.

        Returns:
            ``images``, ``categories`` and ``annotations`` with the file's image and category ids. Annotation ids are
            1..M: pycocotools takes a detection that matched annotation 0 for a miss.
        """
        columns = zip(
            self.image_ids[self.image_of_box].tolist(),
            self.category_ids[self.labels].tolist(),
            self.exact_xywh_px.tolist(),
            self.areas.tolist(),
            self.is_crowd.astype(int).tolist(),
            strict=True,
        )
        keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
        return {
            "images": [
                {"id": image_id, "file_name": str(self.path(row)), "height": height, "width": width}
                for row, (image_id, (height, width)) in enumerate(
                    zip(self.image_ids.tolist(), self.sizes_hw.tolist(), strict=True)
                )
            ],
            "categories": [
                {"id": category_id, "name": name}
                for category_id, name in zip(self.category_ids.tolist(), self.names, strict=True)
            ],
            "annotations": [
                {"id": number, **dict(zip(keys, values, strict=True))} for number, values in enumerate(columns, start=1)
            ],
        }


def offsets_of(counts: np.ndarray) -> np.ndarray:
    """(N,) boxes per image to (N + 1,) int64 offsets into the flat arrays."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def kept_marks(values: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of (M, number of ``MARKS``) int8 that say anything, as ``AnnotationTable.marks`` has them."""
    return {name: column for name, column in zip(MARKS, values.T, strict=True) if column.any()}


def encode_paths(paths: Sequence[Path]) -> np.ndarray:
    """Paths as a flat (N,) array of UTF-8 bytes, the form of ``AnnotationTable.image_paths``."""
    encoded = [str(path).encode("utf-8", "surrogateescape") for path in paths]
    return np.array(encoded, dtype=np.bytes_) if encoded else np.zeros(0, dtype="S1")
