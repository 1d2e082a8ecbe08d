"""Annotations of a split in flat arrays, independent of the format.

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
    """Kind of a finding that is no problem: written in another tool's way, and read as meant."""

    __slots__ = ()


class Problems:
    """Problems of a data set: the count and the first examples of each kind."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, kind: str, example: str) -> None:
        """Count a problem; ``kind`` includes its treatment, such as "boxes without area (skipped)"."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _NUM_EXAMPLES:
            examples.append(shorten(example, _MAX_EXAMPLE))

    def count(self, kind: str) -> int:
        return self._counts.get(kind, 0)

    def found(self) -> list[tuple[str, int, tuple[str, ...]]]:
        """Return kind, count and first examples of each kind, in the order of first occurrence."""
        return [(kind, count, tuple(self._examples[kind])) for kind, count in self._counts.items()]

    def merge(self, found: Iterable[tuple[str, int, Sequence[str]]]) -> None:
        """Add the result of ``found`` of others."""
        for kind, count, examples in found:
            self._counts[kind] = self._counts.get(kind, 0) + count
            mine = self._examples.setdefault(kind, [])
            mine += examples[: _NUM_EXAMPLES - len(mine)]

    def summary(self) -> list[str]:
        """Return a line per kind, with its count and up to three examples."""
        return list(self.lines().values())

    def lines(self) -> dict[str, str]:
        """Return the summary's line of each kind."""
        return {kind: f"{count} {kind}: {self._shown(kind, count)}" for kind, count in self._counts.items()}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def _shown(self, kind: str, count: int) -> str:
        return "; ".join(self._examples[kind]) + ("; ..." if count > _NUM_EXAMPLES else "")


@dataclass(frozen=True)
class Windows:
    """Windows in image files, in place of whole images.

    Args:
        windows_xyxy_px: (N, 4) int64, pixels of the file's image, inside it.
        image_sizes_hw: (N, 2) int32, height and width of that image.
    """

    windows_xyxy_px: np.ndarray
    image_sizes_hw: np.ndarray

    def select(self, keep: np.ndarray) -> Windows:
        """Return the windows where ``keep`` (N,) bool is True."""
        return Windows(self.windows_xyxy_px[keep], self.image_sizes_hw[keep])

    def cut(self, row: int, image_rgb: np.ndarray) -> np.ndarray:
        """Copy window ``row`` from the image of its file, (H, W, 3): a view would keep the whole image in memory."""
        left, top, right, bottom = self.windows_xyxy_px[row].tolist()
        return image_rgb[top:bottom, left:right].copy()


@dataclass(frozen=True)
class AnnotationTable:
    """Images of a split and their boxes.

    Args:
        image_paths: (N,) bytes (dtype S), absolute paths in UTF-8; ``path`` decodes one.
        image_ids: (N,) int64, each image's id.
        has_own_ids: the ids come from the annotation file (COCO); otherwise they are 1..N.
        sizes_hw: (N, 2) int32, height and width of each image, EXIF orientation applied.
        box_offsets: (N + 1,) int64; image ``row`` has the boxes ``box_offsets[row]`` to ``box_offsets[row + 1]``.
        boxes_xyxy_px: (M, 4) float64, original-image pixels as annotated: they may stick out of the image a little.
        labels: (M,) int64 class index in [0, K).
        is_crowd: (M,) bool; not trained on, and detections in it count neither as right nor as wrong.
        areas: (M,) float64, pixels: the annotation's own ``area`` (in COCO of the segmentation), else width * height.
        names: K class names.
        category_ids: (K,) int64, ids of the classes in the annotation file.
        is_labelled: False for a split that was published without annotations.
        problems: found while reading.
        boxes_xywh_px: (M, 4) float64, left, top, width, height, bit for bit as in the file, if it has this form.
        marks: (M,) int8 each, by a name of ``MARKS``, if the file marks any box. 0 is no; VisDrone has degrees. They
            are ignored in training and evaluation.
        attributes: (M,) text, further ones of each box by name, as a JSON object or empty; None: there are none. COCO
            files that are written have them.
        positions: (M,) int64, position of each box in the list ``annotations`` of a COCO file; else None.
        skipped_paths: (S,) as ``image_paths``, annotated images that cannot be used.
        image_ids_json: (N,) bytes, each image's id in JSON, if the ids of the file are text or beyond 64 bits;
            ``image_ids`` then are substitutes.
        category_ids_json: (K,) bytes, likewise of the classes.
        shards: place of the images in shards (``detect.data.formats.shards``), whose paths then are the shard's
            followed by the image's name; None: each image is a file of its own.
        read_settings: of the images.
        windows: each row is this part of its image file (training on tiles), with sizes and boxes of that part; None:
            each row is a whole image.
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
    attributes: np.ndarray | None = None
    positions: np.ndarray | None = None
    skipped_paths: np.ndarray = dataclasses.field(default_factory=lambda: encode_paths([]))
    image_ids_json: np.ndarray | None = None
    category_ids_json: np.ndarray | None = None
    shards: ShardImages | None = None
    read_settings: ReadSettings = PLAIN
    windows: Windows | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, row: int) -> Path:
        """Path of image ``row``."""
        return Path(self.image_paths[row].decode("utf-8", "surrogateescape"))

    def read_bytes(self, row: int) -> bytes:
        """Read the content of image ``row``'s file, from a shard or not; ``ImageError`` if that fails."""
        image = self.stored(row)
        return image.read(self.read_settings.max_pixels) if self.shards is None else self.shards.read(image)

    def stored(self, row: int) -> StoredImage:
        """Location of the content of image ``row``."""
        if self.shards is None:
            return StoredImage(self.path(row))
        return StoredImage(self.path(row), self.shards.file(row), *self.shards.spans[row].tolist())

    def num_bytes(self, row: int) -> int:
        """Size of ``read_bytes``."""
        return self.path(row).stat().st_size if self.shards is None else int(self.shards.spans[row, 1])

    def read(self, row: int) -> np.ndarray:
        """Read image ``row``, or its window, (H, W, 3) uint8 RGB; ``ImageError`` if that fails."""
        image = self.read_file(row)
        return image if self.windows is None else self.windows.cut(row, image)

    def read_file(self, row: int) -> np.ndarray:
        """Read the whole image of row ``row``'s file, (H, W, 3) uint8 RGB; ``ImageError`` if that fails."""
        with decoder_warnings(self.path(row)):
            return decode_image(self.read_bytes(row), str(self.path(row)), self.read_settings)

    def stored_in(self, row: int) -> Path:
        """File on the disk that has image ``row``."""
        return self.path(row) if self.shards is None else self.shards.file(row)

    def boxes(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Views of image ``row``'s boxes_xyxy_px (m, 4) float64, labels (m,) int64, is_crowd (m,) bool."""
        here = slice(self.box_offsets[row], self.box_offsets[row + 1])
        return self.boxes_xyxy_px[here], self.labels[here], self.is_crowd[here]

    def without_background(self) -> AnnotationTable:
        """Return the split without images that have no box, or only crowd regions (whose content is unknown)."""
        return self.select(np.bincount(self.image_of_box[~self.is_crowd], minlength=len(self)) > 0)

    @property
    def image_of_box(self) -> np.ndarray:
        """Row of each box's image, (M,) int64."""
        return np.repeat(np.arange(len(self)), np.diff(self.box_offsets))

    def select(self, keep: np.ndarray) -> AnnotationTable:
        """Return the images where ``keep`` (N,) bool is True, with their boxes."""
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
            attributes=None if self.attributes is None else self.attributes[keep_box],
            positions=None if self.positions is None else self.positions[keep_box],
            image_ids_json=None if self.image_ids_json is None else self.image_ids_json[keep],
            shards=None if self.shards is None else self.shards.select(keep),
            windows=None if self.windows is None else self.windows.select(keep),
        )

    def with_box_areas(self) -> AnnotationTable:
        """Return the split with width * height as the areas."""
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
        """Ids of the K classes as JSON values of the annotation file."""
        if self.category_ids_json is None:
            return self.category_ids.tolist()
        return [*map(json.loads, self.category_ids_json)]

    @property
    def exact_xywh_px(self) -> np.ndarray:
        """Left, top, width, height (M, 4) float64, as in the file if it has this form."""
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
    """Convert boxes per image (N,) to (N + 1,) int64 offsets into the flat arrays."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def kept_marks(values: np.ndarray) -> dict[str, np.ndarray]:
    """Select the columns of (M, number of ``MARKS``) int8 that are not all 0, for ``AnnotationTable.marks``."""
    return {name: column for name, column in zip(MARKS, values.T, strict=True) if column.any()}


def encode_paths(paths: Sequence[Path]) -> np.ndarray:
    """Encode paths as a flat (N,) array of UTF-8 bytes, the form of ``AnnotationTable.image_paths``."""
    encoded = [str(path).encode("utf-8", "surrogateescape") for path in paths]
    return np.array(encoded, dtype=np.bytes_) if encoded else np.zeros(0, dtype="S1")
