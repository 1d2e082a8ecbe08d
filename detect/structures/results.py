"""What a trained network answers, and what users turn that into.

Letters: H W pixels of an image, N detections, K classes.
Boxes are ``xyxy``: x left, y top, x right, y bottom, float, in pixels of the original image.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
from PIL.Image import Image

from detect.boxes.convert import xyxy_to_xywh
from detect.drawing.boxes import draw_boxes
from detect.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Detection:
    """One object that was found.

    Args:
        box_xyxy_px: pixels of the original image, inside it.
        score: in [0, 1].
        label: class index.
        name: of the class.
        track_id: which object of a video it is; None without tracking, and where it is not known.
    """

    box_xyxy_px: tuple[float, float, float, float]
    score: float
    label: int
    name: str
    track_id: int | None = None

    @property
    def caption(self) -> str:
        """What is written beside its box."""
        track = "" if self.track_id is None else f"#{self.track_id} "
        return f"{track}{self.name} {self.score:.2f}"


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best score first: a sequence of ``Detection``.

    Example:
        ``for one in found.filter(classes=["cat"], min_score=0.5): print(one.name, one.box_xyxy_px)``; ``found[0]`` is
        the best one, ``found[:10]`` are the ten best.

    Args:
        boxes_xyxy_px: (N, 4) float32, pixels of the original image, inside it.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64 class index, in [0, K).
        image_hw: height and width of the original image.
        names: the K class names.
        track_ids: (N,) int64, which object of a video it is, from 1; -1 where it is not known (yet). None without
            tracking.
        reached_limit: as many were found as are kept of an image (``max_det``), so there may be more objects.
    """

    boxes_xyxy_px: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    image_hw: tuple[int, int]
    names: tuple[str, ...]
    track_ids: np.ndarray | None = None
    reached_limit: bool = False

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Detection: ...

    @overload
    def __getitem__(self, index: slice) -> Detections: ...

    def __getitem__(self, index: int | slice) -> Detection | Detections:
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        left, top, right, bottom = self.boxes_xyxy_px[index].tolist()
        label = int(self.labels[index])
        track_id = -1 if self.track_ids is None else int(self.track_ids[index])
        return Detection(
            (left, top, right, bottom),
            float(self.scores[index]),
            label,
            self.names[label],
            None if track_id < 0 else track_id,
        )

    @property
    def class_names(self) -> list[str]:
        """The class name of each of the N detections."""
        return [self.names[label] for label in self.labels]

    def select(self, keep: np.ndarray) -> Detections:
        """The detections at ``keep``: (N,) bool or (n,) int indices."""
        track_ids = None if self.track_ids is None else self.track_ids[keep]
        return replace(
            self,
            boxes_xyxy_px=self.boxes_xyxy_px[keep],
            scores=self.scores[keep],
            labels=self.labels[keep],
            track_ids=track_ids,
        )

    def filter(self, classes: Sequence[str | int] | None = None, min_score: float = 0.0) -> Detections:
        """The detections of some classes, or with at least some score.

        Args:
            classes: names or indices; None keeps all.
            min_score: in [0, 1].

        Raises:
            InputError: there is no such class, or the score is out of range.
        """
        if not 0 <= min_score <= 1:
            raise InputError(f"min_score: must be from 0 to 1, found {min_score:g}")
        wanted = class_indices(classes, self.names)
        keep = self.scores >= min_score
        return self.select(keep if wanted is None else keep & np.isin(self.labels, wanted))

    def plot(self, image_rgb: np.ndarray | Image) -> np.ndarray:
        """Draw the boxes with class names and scores, and the numbers of tracked objects.

        Args:
            image_rgb: (H, W, 3) uint8, the image that this was found in, or a PIL image of the mode RGB.

        Returns:
            A copy with the drawing, (H, W, 3) uint8.

        Raises:
            InputError: it is no such image, or has another size.
        """
        image = np.asarray(image_rgb)
        expected = (*self.image_hw, 3)
        if image.shape != expected or image.dtype != np.uint8:
            raise InputError(
                f"plot: needs the image that this was found in, upright: {expected} uint8 RGB; "
                f"found {image.shape} {image.dtype}"
            )
        return draw_boxes(image, self.boxes_xyxy_px, self.labels, [one.caption for one in self])

    def to_coco(self, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Entries of a COCO results file, which pycocotools and evaluation servers read.

        Args:
            image_id: of the image in the annotation file.
            category_ids: K ids of the annotation file, such as ``detector.category_ids``.

        Returns:
            N entries ``{"image_id", "category_id", "score", "bbox": [x, y, width, height]}``, in pixels.

        Raises:
            InputError: there are not K ids.
        """
        if len(category_ids) != len(self.names):
            raise InputError(f"category_ids: must be {len(self.names)}, as many as names, found {len(category_ids)}")
        boxes_xywh_px = xyxy_to_xywh(self.boxes_xyxy_px.astype(np.float64)).tolist()
        return [
            {"image_id": int(image_id), "category_id": int(category_ids[label]), "score": score, "bbox": box}
            for label, score, box in zip(self.labels.tolist(), self.scores.tolist(), boxes_xywh_px, strict=True)
        ]

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame`` with a row for each detection.

        Returns:
            Columns ``name``, ``label``, ``score``, ``left``, ``top``, ``right``, ``bottom`` (pixels), and, of tracked
            objects, ``track_id``.

        Raises:
            InputError: pandas is not installed.
        """
        sides = dict(zip(("left", "top", "right", "bottom"), self.boxes_xyxy_px.T, strict=True))
        tracks = {} if self.track_ids is None else {"track_id": self.track_ids}
        columns = {"name": self.class_names, "label": self.labels, "score": self.scores, **sides, **tracks}
        return _installed("pandas", "to_dataframe").DataFrame(columns)

    def to_supervision(self) -> Any:
        """The same as ``supervision.Detections``, with the class names in ``data``, as supervision's annotators want.

        Raises:
            InputError: supervision is not installed.
        """
        return _installed("supervision", "to_supervision").Detections(
            xyxy=self.boxes_xyxy_px.astype(np.float32),
            confidence=self.scores.astype(np.float32),
            class_id=self.labels.astype(int),
            tracker_id=None if self.track_ids is None else self.track_ids.astype(int),
            data={"class_name": np.array(self.class_names, dtype=np.str_)},
        )


@dataclass(frozen=True)
class Classification:
    """What an image shows.

    Args:
        probabilities: (K,) float32, of each class; they sum to 1.
        names: the K class names.
    """

    probabilities: np.ndarray
    names: tuple[str, ...]

    @property
    def label(self) -> int:
        """Index of the most probable class."""
        return int(self.probabilities.argmax())

    @property
    def name(self) -> str:
        """Name of the most probable class."""
        return self.names[self.label]

    @property
    def score(self) -> float:
        """Probability of the most probable class."""
        return float(self.probabilities[self.label])

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Names and probabilities of the ``count`` most probable classes, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.names[label], float(self.probabilities[label])) for label in order]


def class_indices(classes: Sequence[str | int] | None, names: Sequence[str]) -> tuple[int, ...] | None:
    """Class names or indices as indices, each once; None stays None.

    Args:
        classes: what a user chose.
        names: the K class names.

    Raises:
        InputError: there is no such class.
    """
    if classes is None:
        return None
    if isinstance(classes, str):
        raise InputError(f"classes: must be a list, such as [{classes!r}]")
    return tuple(dict.fromkeys(_class_index(choice, names) for choice in classes))


def _class_index(choice: str | int, names: Sequence[str]) -> int:
    if isinstance(choice, str) and choice in names:
        return names.index(choice)
    try:
        index = int(choice)
    except ValueError:
        raise InputError(f"classes: unknown class {choice!r}{did_you_mean(str(choice), names)}") from None
    if not 0 <= index < len(names):
        raise InputError(f"classes: there is no class {index}; allowed: 0 to {len(names) - 1}")
    return index


def _installed(library: str, wanted_by: str) -> Any:
    """A library that this toolkit does not depend on."""
    try:
        return importlib.import_module(library)
    except ImportError:
        raise InputError(f"{wanted_by}: needs {library}, which is not installed: pip install {library}") from None
