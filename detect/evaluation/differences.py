"""Differences between two detectors on a split: which objects one finds and the other does not, which errors it alone
makes; as a list, and as pictures of the images where they differ most, beside the ground truth.

Letters: D detections, M objects, N images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detect.boxes.convert import xywh_to_xyxy
from detect.boxes.intersections import iou_matrix
from detect.data.annotations import AnnotationTable
from detect.data.images import ImageError, write_image
from detect.drawing.boxes import draw_colored_boxes
from detect.drawing.sheets import Panel, fitted, heading, panel_sheet
from detect.drawing.text import shorten
from detect.evaluation.errors import FOREGROUND, RIGHT
from detect.evaluation.examples import MAX_CAPTION_NAME, Shown

Model = Literal["A", "B"]
MODELS: tuple[Model, Model] = ("A", "B")
Kind = Literal["found by one", "wrong of one"]

TRUTH = (0, 114, 178)
COLORS = {"A": (213, 94, 0), "B": (0, 158, 115)}
"""Blue, vermilion and bluish green, of the colours of Okabe and Ito, which colour-blind people tell apart."""

SIDE_PX, GAP_PX, SHEET_COLUMNS = 320, 6, 2
"""Long side of an image in a strip, the gap between its three, and the strips of a row."""


@dataclass(frozen=True)
class Difference:
    """One place where two detectors differ.

    Args:
        row: of the image.
        kind: an object that one model finds and the other does not, or a wrong detection of one model where the other
            has none of that class.
        model: the one with the detection.
        label: class of the detection.
        score: of the detection.
        box_xyxy_px: of the detection, in pixels of the image.
    """

    row: int
    kind: Kind
    model: Model
    label: int
    score: float
    box_xyxy_px: np.ndarray

    def record(self, table: AnnotationTable) -> dict[str, Any]:
        """Return the difference as a line of the list."""
        sides = zip(("left", "top", "right", "bottom"), self.box_xyxy_px.tolist(), strict=True)
        return {
            "image": table.path(self.row).name,
            "kind": self.kind,
            "model": self.model,
            "class": table.names[self.label],
            "score": round(self.score, 5),
            **{side: round(value, 2) for side, value in sides},
        }


@dataclass(frozen=True)
class DetectorPair:
    """Two detectors on one split.

    Args:
        shown: detections and errors of A and of B.
        is_only: (D,) bool of each: the detection makes the difference.
    """

    shown: tuple[Shown, Shown]
    is_only: tuple[np.ndarray, np.ndarray]

    @property
    def table(self) -> AnnotationTable:
        return self.shown[0].table

    @property
    def differences(self) -> list[Difference]:
        """All differences, those of the images with the most of them first; within an image by model and score."""
        found = [one for model in (0, 1) for one in self._of_model(model)]
        counts = self.counts
        return sorted(found, key=lambda one: (-counts[one.row], one.row, one.model, -one.score))

    @property
    def counts(self) -> np.ndarray:
        """(N,) int64, the differences of each image."""
        rows = [shown.matches.rows[only] for shown, only in zip(self.shown, self.is_only, strict=True)]
        return np.bincount(np.concatenate(rows), minlength=len(self.table))

    @property
    def totals(self) -> dict[str, int]:
        """Objects that both models, one or none of them find, and wrong detections that one alone makes."""
        is_counted = ~self.table.is_crowd
        first, second = (is_counted & ~shown.errors.is_free for shown in self.shown)
        wrong = [
            int((only & (shown.errors.kinds != RIGHT)).sum())
            for shown, only in zip(self.shown, self.is_only, strict=True)
        ]
        return {
            "objects": int(is_counted.sum()),
            "found_by_both": int((first & second).sum()),
            "found_by_a_alone": int((first & ~second).sum()),
            "found_by_b_alone": int((second & ~first).sum()),
            "found_by_none": int((is_counted & ~first & ~second).sum()),
            "wrong_of_a_alone": wrong[0],
            "wrong_of_b_alone": wrong[1],
        }

    def _of_model(self, model: int) -> list[Difference]:
        shown = self.shown[model]
        corners = xywh_to_xyxy(shown.found.boxes_xywh_px)[shown.matches.detections]
        return [
            Difference(
                row=int(shown.matches.rows[index]),
                kind="found by one" if shown.errors.kinds[index] == RIGHT else "wrong of one",
                model=MODELS[model],
                label=int(shown.matches.labels[index]),
                score=float(shown.matches.scores[index]),
                box_xyxy_px=corners[index],
            )
            for index in np.flatnonzero(self.is_only[model])
        ]


def pair_detectors(first: Shown, second: Shown) -> DetectorPair:
    """Find where two detectors differ, from their detections on one split, above one score."""
    return DetectorPair((first, second), (_only(first, second), _only(second, first)))


def _only(own: Shown, other: Shown) -> np.ndarray:
    """(D,) bool: ``own`` detections of objects that ``other`` misses, and wrong ones that it does not make."""
    matches = own.matches
    has_object = matches.object_of >= 0
    is_found = has_object & np.append(other.errors.is_free, False)[matches.object_of]
    is_wrong = own.errors.kinds != RIGHT
    is_shared = np.zeros(len(is_wrong), dtype=bool)
    corners, theirs = (xywh_to_xyxy(shown.found.boxes_xywh_px)[shown.matches.detections] for shown in (own, other))
    other_wrong = other.errors.kinds != RIGHT
    for row in np.unique(matches.rows[is_wrong]):
        here = np.flatnonzero(is_wrong & (matches.rows == row))
        there = np.flatnonzero(other_wrong & (other.matches.rows == row))
        is_same = matches.labels[here][:, None] == other.matches.labels[there]
        is_shared[here] = (is_same & (iou_matrix(corners[here], theirs[there]) >= FOREGROUND)).any(axis=1)
    return np.asarray(is_found | (is_wrong & ~is_shared))


def draw_differences(path: Path, pair: DetectorPair, count: int) -> int:
    """Draw the images that differ most, each as truth, A and B, and return their number.

    Frames of a model: whole where right, dashed where wrong, with class and score where the other model has nothing
    like it; and the objects, dashed in the colour of the truth, that it misses and the other finds.
    """
    counts = pair.counts
    order = [int(row) for row in np.argsort(-counts, kind="stable")[:count] if counts[row]]
    panels = [panel for row in order if (panel := _strip(pair, row)) is not None]
    sheet = panel_sheet(panels, min(SHEET_COLUMNS, max(len(panels), 1)), (SIDE_PX, 3 * SIDE_PX + 2 * GAP_PX))
    text = "left the truth, in the middle A, right B" if panels else "No image differs."
    write_image(path, np.concatenate([heading(text, sheet.shape[1]), sheet]))
    return len(panels)


def _strip(pair: DetectorPair, row: int) -> Panel | None:
    """Draw one image three times; None if it cannot be read any more."""
    table = pair.table
    try:
        image = table.read(row)
    except ImageError:
        return None
    small = fitted(image, SIDE_PX)
    factor = small.shape[1] / image.shape[1]
    boxes, labels, is_crowd = table.boxes(row)
    captions = ["crowd" if crowd else table.names[k] for k, crowd in zip(labels, is_crowd, strict=True)]
    truth = draw_colored_boxes(small, boxes * factor, [TRUTH] * len(boxes), captions)
    first, second = (_of_model(pair, model, row, small, factor) for model in (0, 1))
    gap = np.full((len(small), GAP_PX, 3), 255, np.uint8)
    alone = [int((shown.matches.rows[only] == row).sum()) for shown, only in zip(pair.shown, pair.is_only, strict=True)]
    text = f"of A alone {alone[0]}, of B alone {alone[1]}"
    return Panel(np.concatenate([truth, gap, first, gap, second], axis=1), (table.path(row).name, text))


def _of_model(pair: DetectorPair, model: int, row: int, small: np.ndarray, factor: float) -> np.ndarray:
    shown, other = pair.shown[model], pair.shown[1 - model]
    matches, names = shown.matches, pair.table.names
    here = np.flatnonzero(matches.rows == row)
    here = here[np.argsort(-matches.scores[here], kind="stable")]
    corners = xywh_to_xyxy(shown.found.boxes_xywh_px[matches.detections[here]])
    is_only = pair.is_only[model][here]
    captions = [
        f"{shorten(names[matches.labels[index]], MAX_CAPTION_NAME)} {matches.scores[index]:.2f}" if only else ""
        for index, only in zip(here, is_only, strict=True)
    ]
    objects = slice(pair.table.box_offsets[row], pair.table.box_offsets[row + 1])
    is_missed = (shown.errors.is_free & ~other.errors.is_free)[objects]
    missed = pair.table.boxes(row)[0][is_missed]
    boxes = np.concatenate([corners, missed]) * factor
    colors = [COLORS[MODELS[model]]] * len(corners) + [TRUTH] * len(missed)
    is_dashed = np.append(shown.errors.kinds[here] != RIGHT, np.ones(len(missed), dtype=bool))
    return draw_colored_boxes(small, boxes, colors, [*captions, *[""] * len(missed)], is_dashed)


def summary_line(totals: dict[str, int]) -> str:
    return (
        f"of {totals['objects']} objects both find {totals['found_by_both']}, A alone {totals['found_by_a_alone']}, "
        f"B alone {totals['found_by_b_alone']}, neither {totals['found_by_none']}; "
        f"wrong detections of A alone {totals['wrong_of_a_alone']}, of B alone {totals['wrong_of_b_alone']}"
    )
