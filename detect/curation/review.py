"""Disagreements of a model with the labels, as places where a label may be wrong: a list, and a sheet of pictures.

Faults of the labels that are rare are not learned, so that what a model finds with confidence, and nobody labelled, is
worth a look. Kinds of errors and IoU thresholds are those of the evaluation's report.

Letters: D detections, M objects, m objects of one image, N images.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detect.boxes.convert import xywh_to_xyxy
from detect.boxes.intersections import iou_matrix
from detect.data.annotations import AnnotationTable
from detect.data.images import ImageError, write_image
from detect.drawing.boxes import draw_frames
from detect.drawing.sheets import PANEL_PX, Panel, fitted, panel_sheet
from detect.drawing.text import spreadsheet_text
from detect.evaluation.coco import FoundBoxes
from detect.evaluation.errors import BACKGROUND, CLASS, DUPLICATE, PLACE, RIGHT, find_errors
from detect.evaluation.matches import ALL_AREAS, Matches, match_by_coco
from detect.runtime.files import atomic_path, write_json

Kind = Literal["missing label", "wrong class", "loose box", "extra label"]
KINDS: dict[Kind, str] = {
    "missing label": "a confident prediction that no label of its class is for",
    "wrong class": "a confident prediction at the place of a label of another class",
    "loose box": "a confident prediction of the label's class that overlaps it badly",
    "extra label": "a label near which the model sees nothing, not even with a low score",
}

LOOSE = 0.65
"""IoU below which a right prediction still says that the label's box is loose."""

WEAK_SCORE = 0.05
"""Score from which a prediction speaks for a label near it."""

TABLE, RECORD, SHEET = "review.csv", "review.json", "sheet.jpg"
"""Files of a review."""

COLUMNS = ("rank", "image", "kind", "label", "predicted", "score", "iou", "left", "top", "right", "bottom", "strength")

_CONTEXT, _MIN_CONTEXT_PX = 2.5, 48
_COLUMNS = 8


_DIGITS = {"score": 5, "iou": 4, "strength": 4}
"""Digits behind the point; of sides of boxes, in pixels, 2."""


@dataclass(frozen=True)
class Disagreement:
    """One place where model and labels disagree.

    Args:
        row: of the image.
        kind: of the disagreement.
        label: class of the label; empty for a missing one.
        predicted: class of the prediction; empty for an extra label.
        score: of the prediction; 0 for an extra label.
        iou: of both; 0 where there is one box only.
        box_xyxy_px: of the prediction, else of the label; pixels of the image.
        strength: in [0, 1], how much the model is against the label.
    """

    row: int
    kind: Kind
    label: str
    predicted: str
    score: float
    iou: float
    box_xyxy_px: tuple[float, float, float, float]
    strength: float


def find_disagreements(
    table: AnnotationTable, found: FoundBoxes, min_score: float, known: Sequence[str]
) -> list[Disagreement]:
    """Find the disagreements of a split, those of the images with the largest sum of strengths first.

    ``found`` has the detections of low scores too; those below ``min_score`` do not speak against a label. Labels of
    other classes than those ``known`` to the model are not judged.
    """
    matches = match_by_coco(table, found, [ALL_AREAS])[0].from_score(min_score)
    places = [*_of_predictions(table, found, matches), *_extra_labels(table, found, known)]
    total = np.zeros(len(table))
    for one in places:
        total[one.row] += one.strength
    return sorted(places, key=lambda one: (-total[one.row], one.row, -one.strength))


def _of_predictions(table: AnnotationTable, found: FoundBoxes, matches: Matches) -> list[Disagreement]:
    errors = find_errors(table, found, matches)
    corners = xywh_to_xyxy(found.boxes_xywh_px)[matches.detections]
    # A prediction whose label has a better one is of another object, which nobody labelled.
    is_open = np.append(errors.is_free, False)[errors.targets]
    places = []
    for index in range(len(matches.rows)):
        kind, target = int(errors.kinds[index]), int(errors.targets[index])
        if matches.ignored[0, index] or kind == DUPLICATE or (kind == CLASS and not is_open[index]):
            continue
        what: Kind = "wrong class" if kind == CLASS else "loose box"
        if kind == RIGHT:
            target = int(matches.object_of[index])
        elif kind != CLASS and not (kind == PLACE and is_open[index]):
            what, target = "missing label", -1
        overlap = (
            float(iou_matrix(corners[index : index + 1], table.boxes_xyxy_px[target][None])[0, 0]) if target >= 0 else 0
        )
        if kind == RIGHT and overlap >= LOOSE:
            continue
        score = float(matches.scores[index])
        name = table.names[table.labels[target]] if target >= 0 else ""
        strength = score * (1 - overlap) if what == "loose box" else score
        predicted = table.names[matches.labels[index]]
        box = _corners(corners[index])
        places.append(Disagreement(int(matches.rows[index]), what, name, predicted, score, overlap, box, strength))
    return places


def _extra_labels(table: AnnotationTable, found: FoundBoxes, known: Sequence[str]) -> list[Disagreement]:
    """Return the labels near which nothing of at least ``WEAK_SCORE`` was found, of any class."""
    corners = xywh_to_xyxy(found.boxes_xywh_px)
    limits = np.searchsorted(found.rows, np.arange(len(table) + 1))
    places = []
    for row in range(len(table)):
        boxes, labels, is_crowd = table.boxes(row)
        here = slice(limits[row], limits[row + 1])
        is_near = iou_matrix(boxes, corners[here]) >= BACKGROUND  # (m, detections of the image)
        evidence = (is_near * found.scores[here]).max(axis=1, initial=0.0)
        for index in np.flatnonzero((evidence < WEAK_SCORE) & ~is_crowd).tolist():
            name = table.names[labels[index]]
            if name in known:
                strength = 1 - float(evidence[index]) / WEAK_SCORE
                places.append(Disagreement(row, "extra label", name, "", 0.0, 0.0, _corners(boxes[index]), strength))
    return places


def _corners(box_xyxy_px: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = box_xyxy_px.tolist()
    return left, top, right, bottom


# ------------------------------------------------------------------------------------------------- files


def write_review(folder: Path, table: AnnotationTable, places: Sequence[Disagreement], count: int) -> list[str]:
    """Write the list as CSV and JSON and the sheet of the ``count`` strongest, and return the lines of the report."""
    ranks = {row: rank for rank, row in enumerate(dict.fromkeys(one.row for one in places), start=1)}
    records = [_record(table, one, ranks[one.row]) for one in places]
    with atomic_path(folder / TABLE) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for record in records:
            writer.writerow({key: spreadsheet_text(value) for key, value in record.items()})
    write_json(folder / RECORD, records)
    panels = [panel for one in _chosen(places, count) if (panel := _panel(table, one)) is not None]
    write_image(folder / SHEET, panel_sheet(panels, max(1, min(_COLUMNS, len(panels)))))
    counts = {kind: sum(one.kind == kind for one in places) for kind in KINDS}
    lines = [f"{len(places)} disagreements in {len(ranks)} of {len(table)} images"]
    lines += [f"  {number:5} {kind}: {KINDS[kind]}" for kind, number in counts.items()]
    lines += [f"list: {folder / TABLE}, {folder / RECORD}"]
    return [*lines, f"sheet of the {len(panels)} strongest (labels: whole frames, model: dashed): {folder / SHEET}"]


def _chosen(places: Sequence[Disagreement], count: int) -> list[Disagreement]:
    """Return the strongest of each kind, in the order of ``KINDS``; a kind with few leaves its share to the others."""
    by_kind = [sorted((one for one in places if one.kind == kind), key=lambda one: -one.strength) for kind in KINDS]
    share = count // len(by_kind)
    rest = sorted((one for some in by_kind for one in some[share:]), key=lambda one: -one.strength)
    spare = count - sum(min(share, len(some)) for some in by_kind)
    more = {id(one) for one in rest[:spare]}
    return [one for some in by_kind for number, one in enumerate(some) if number < share or id(one) in more]


def _record(table: AnnotationTable, one: Disagreement, rank: int) -> dict[str, Any]:
    values = dataclasses.asdict(one)
    sides = dict(zip(("left", "top", "right", "bottom"), values.pop("box_xyxy_px"), strict=True))
    values = {"rank": rank, "image": table.path(values.pop("row")).name, **values, **sides}
    return {column: _rounded(column, values[column]) for column in COLUMNS}


def _rounded(column: str, value: Any) -> Any:
    return round(value, _DIGITS.get(column, 2)) if isinstance(value, float) else value


def _panel(table: AnnotationTable, one: Disagreement) -> Panel | None:
    """Return the surroundings of a place with labels and, dashed, the prediction; None for an unreadable image."""
    try:
        image = table.read(one.row)
    except ImageError:
        return None
    box = np.array(one.box_xyxy_px)
    side = max(_CONTEXT * float((box[2:] - box[:2]).max()), _MIN_CONTEXT_PX) / 2
    centre = (box[:2] + box[2:]) / 2
    height, width = image.shape[:2]
    left, top = np.clip(np.floor(centre - side), 0, (width - 1, height - 1)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(centre + side), (left + 1, top + 1), (width, height)).astype(int).tolist()
    part = fitted(image[top:bottom, left:right], PANEL_PX)
    factor = part.shape[1] / (right - left)
    boxes, labels, _ = table.boxes(one.row)
    is_predicted = one.kind != "extra label"
    boxes = np.concatenate([box[None], boxes]) if is_predicted else boxes
    label = table.names.index(one.predicted or one.label)
    labels = np.concatenate([[label], labels]) if is_predicted else labels
    is_dashed = np.arange(len(boxes)) < int(is_predicted)
    picture = draw_frames(part, (boxes - [left, top, left, top]) * factor, labels, is_dashed)
    text = {"wrong class": f"{one.label}, not {one.predicted}?"}.get(
        one.kind, f"{one.kind}: {one.predicted or one.label}"
    )
    return Panel(picture, (text, f"{one.strength:.2f} {table.path(one.row).name}"))
