"""A detector's evaluation as one HTML file that holds all it shows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detect.data.annotations import AnnotationTable
from detect.evaluation.coco import ABSENT, METRICS, CocoMetrics
from detect.evaluation.confusion import IOU, SCORE, confusion_matrix
from detect.evaluation.crowding import measure_crowding
from detect.evaluation.detection import Evaluation
from detect.evaluation.errors import FOREGROUND, KINDS, Errors, find_errors, gains
from detect.evaluation.examples import Example, encode, false_positives, misses, show, worst_images
from detect.evaluation.html import elements
from detect.evaluation.html.elements import Html, joined, note, table
from detect.evaluation.html.statistics import (
    BINS,
    COCO_SIDES,
    OBJECT_SIDES,
    SizeRow,
    area_ranges,
    by_image_size,
    by_object_size,
    calibration,
    calibration_error,
    spreads,
)
from detect.evaluation.html.thresholds import at_thresholds
from detect.evaluation.matches import ALL_AREAS, Matches, match_by_coco
from detect.evaluation.pictures import draw_confusion_matrix, draw_precision_recall
from detect.runtime.files import write_text

FILE_NAME = "index.html"

MAX_BYTES = 5_000_000
"""Size of the page."""

MAX_CLASSES = 500
"""Rows of the table of classes."""

SPREAD_OF = {
    "AP": (0, 0),
    "AP50": (0, 1),
    "AP75": (0, 2),
    "AR_100": (0, 3),
    "AP_S": (1, 0),
    "AR_S": (1, 3),
    "AP_M": (2, 0),
    "AR_M": (2, 3),
    "AP_L": (3, 0),
    "AR_L": (3, 3),
}
"""Range of areas (all, then COCO's three) and field of ``Averages`` of the metrics that have a spread."""


@dataclass(frozen=True)
class Background:
    """Facts that a report states beside the evaluation.

    Args:
        about: weights, data, split, settings.
        costs: of the network by name, as text.
        problems: of the data, a line each.
    """

    about: Mapping[str, Any]
    costs: Mapping[str, str]
    problems: Sequence[str]


def write_report(folder: Path, evaluation: Evaluation, background: Background) -> Path:
    """Write ``index.html`` of at most ``MAX_BYTES`` for a split with annotations; return its path."""
    page = folder / FILE_NAME
    write_text(page, render(evaluation, background))
    return page


def render(evaluation: Evaluation, background: Background) -> str:
    """Return the page of ``write_report``."""
    metrics, split = evaluation.metrics, evaluation.table
    assert metrics is not None, "an unlabelled split has no metrics"
    found = evaluation.found.best(evaluation.kept)
    ranges = [ALL_AREAS, *area_ranges(COCO_SIDES)]
    matches = match_by_coco(split, found, [*ranges, *area_ranges(OBJECT_SIDES)])
    shown = show(split, found, matches[0])
    galleries = (worst_images(shown), false_positives(shown), misses(shown))
    first: list[tuple[str, Html]] = [
        ("Numbers", _numbers(metrics, matches[: len(ranges)])),
        ("Object size", _object_sizes(by_object_size(matches[len(ranges) :]))),
        ("Classes", _classes(metrics)),
        ("Image size", _image_sizes(by_image_size(split, matches[0]))),
        ("Precision and recall", _precision_recall(metrics)),
        ("Confusion", _confusion(evaluation)),
        ("Errors by kind", _errors(split, matches[0], find_errors(split, found, matches[0]), shown.errors)),
        ("Score threshold", _thresholds(matches[0])),
        ("Calibration", _calibration(matches[0])),
    ]
    last = [
        ("Speed", _speed(evaluation)),
        ("Costs", _costs(background.costs)),
        ("Data", _data(split, background.problems)),
    ]

    def page(pictures: Sequence[Sequence[bytes | None]]) -> str:
        middle = [_gallery(*each) for each in zip(GALLERIES, galleries, pictures, strict=True)]
        title = f"{Path(str(background.about.get('weights', ''))).name} on {background.about.get('data', '')}"
        return elements.document(title, _introduction(evaluation, background.about), [*first, *middle, *last])

    return _fill(page, galleries)


def _fill(page: Callable[[Sequence[Sequence[bytes | None]]], str], galleries: Sequence[Sequence[Example]]) -> str:
    """Make the page with pictures that fill it to at most ``MAX_BYTES``."""
    empty = page([[b""] * len(gallery) for gallery in galleries])
    room = (MAX_BYTES - len(empty.encode())) * 3 // 4  # in base64 three bytes take four characters
    count = sum(map(len, galleries))
    encoded = encode([example for gallery in galleries for example in gallery], room - 3 * count)
    parts = iter(encoded)
    return page([[next(parts) for _ in gallery] for gallery in galleries])


def _introduction(evaluation: Evaluation, about: Mapping[str, Any]) -> Html:
    objects = int((~evaluation.table.is_crowd).sum())
    counts = {"images": f"{evaluation.images:,}", "objects": f"{objects:,}", "detections": f"{len(evaluation.found):,}"}
    plain = {key: value for key, value in about.items() if isinstance(value, (str, int, float))}
    facts = {**plain, **counts}
    return table(("", ""), [(key.replace("_", " "), elements.name(str(value))) for key, value in facts.items()])


def _numbers(metrics: CocoMetrics, matches: Sequence[Matches]) -> Html:
    resamples, intervals = spreads(matches)
    rows = []
    for key, (kind, iou, area, counted) in METRICS.items():
        place = SPREAD_OF.get(key)
        interval = None if place is None else intervals[place[0]][place[1]]
        spread = "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
        meaning = f"{kind}, IoU {iou or '0.50:0.95'}, {area} objects, {counted} detections per class and image"
        rows.append((key, _number(metrics[key]), spread, meaning))
    text = (
        f"Spread: 95 % interval of {resamples} samples of the images, drawn with replacement. It says what other "
        "images of the same kind would change, not what another training would."
    )
    return joined([table(("metric", "value", "spread", ""), rows), note(text)])


def _object_sizes(rows: Sequence[SizeRow]) -> Html:
    text = (
        "Size: square root of the area in pixels of the original image. Objects of other sizes are ignored, as are "
        "detections of other sizes that match nothing."
    )
    return joined([_size_table("size in px", rows), note(text)])


def _image_sizes(rows: Sequence[SizeRow]) -> Html:
    return _size_table("long side in px", rows)


def _size_table(head: str, rows: Sequence[SizeRow]) -> Html:
    cells = [
        (
            f"{row.low} and more" if row.high is None else f"{row.low} to {row.high - 1}",
            f"{row.objects:,}",
            f"{row.images:,}",
            _number(row.numbers.ap),
            _number(row.numbers.ap50),
            _number(row.numbers.ar),
            elements.bar(row.numbers.ap),
        )
        for row in rows
    ]
    return table((head, "objects", "images", "AP", "AP50", "AR_100", ""), cells)


def _classes(metrics: CocoMetrics) -> Html:
    present = [(key, row) for key, row in metrics.per_class.items() if row["objects"]]
    keys = ("AP", "AP50", "AP_S", "AP_M", "AP_L", "AR_100")
    cells = [
        (elements.name(key), f"{row['objects']:,}", *(_number(row[k]) for k in keys), elements.bar(row["AP"]))
        for key, row in present[:MAX_CLASSES]
    ]
    parts = [table(("class", "objects", *keys, ""), cells)]
    absent, hidden = len(metrics.per_class) - len(present), len(present) - len(cells)
    parts += [note(f"Classes without objects in the split: {absent}")] * bool(absent)
    parts += [note(f"Further classes, not shown: {hidden}")] * bool(hidden)
    return joined(parts)


def _precision_recall(metrics: CocoMetrics) -> Html:
    return _chart(lambda path: draw_precision_recall(path, metrics), "Interpolated, as COCO reads it.")


def _confusion(evaluation: Evaluation) -> Html:
    matrix = confusion_matrix(evaluation.table, evaluation.found)
    text = (
        f"Detections with a score of at least {SCORE} and the object of the highest IoU, at least {IOU}, whatever its "
        "class; each object counts once. Last row: no object is left for it. Last column: not found."
    )
    return _chart(lambda path: draw_confusion_matrix(path, matrix, evaluation.table.names), text)


def _chart(draw: Callable[[Path], None], caption: str) -> Html:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chart.png"
        draw(path)
        return elements.picture(path.read_bytes(), "png", caption, "chart")


def _errors(split: AnnotationTable, matches: Matches, every: Errors, shown: Errors) -> Html:
    added = gains(split, matches, every)
    rows = [
        (kind, f"{in_shown:,}", f"{in_all:,}", f"{gain:.3f}", elements.bar(gain), meaning)
        for (kind, meaning), in_shown, in_all, gain in zip(
            KINDS.items(), _counts(shown), _counts(every), added, strict=True
        )
    ]
    head = ("kind", f"score ≥ {SCORE}", "all scores", "AP50 gained", "", "")
    text = (
        f"A detection is right if it has an object of its class with an IoU of at least {FOREGROUND}. The kinds are "
        "those of TIDE (Bolya et al. 2020). AP50 gained: what "
        "mending all errors of the kind, of any score, would add."
    )
    return joined([table(head, rows), note(text)])


def _counts(errors: Errors) -> list[int]:
    return [*(int((errors.kinds == kind).sum()) for kind in range(len(KINDS) - 1)), int(errors.is_missed.sum())]


def _thresholds(matches: Matches) -> Html:
    rows = [
        (f"{row.score:.2f}", f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", f"{row.wrong:.2f}")
        for row in at_thresholds(matches)
    ]
    head = ("--conf", "precision", "recall", "F1", "wrong per image")
    text = (
        "At an IoU of at least 0.5, all classes together. Take the row whose errors you can live with; the highest F1 "
        "weighs missed and wrong ones alike. AP does not depend on this choice."
    )
    return joined([table(head, rows), note(text)])


def _calibration(matches: Matches) -> Html:
    ranges = calibration(matches)
    rows = [
        (
            f"{row.low:.1f} to {row.high:.1f}",
            f"{row.detections:,}",
            f"{row.score:.3f}",
            f"{row.right:.3f}",
            elements.bar(row.right),
        )
        for row in ranges
    ]
    error = calibration_error(ranges)
    text = (
        "Right: share of the detections that have an object of their class with an IoU of at least 0.5. Mean distance "
        f"of score and share from a score of {1 / BINS:g} on (expected calibration error): "
        f"{'no detection has such a score' if error is None else f'{error:.3f}'}"
    )
    return joined([table(("score", "detections", "mean score", "right", ""), rows), note(text)])


GALLERIES = (
    (
        "Worst images",
        f"Most errors at a score of at least {SCORE}. Left the truth, dashed: not found. Right the prediction, dashed: "
        "wrong.",
        False,
    ),
    ("False positives", "The wrong detections of the highest scores.", True),
    ("Misses", f"The largest objects without a right detection of at least {SCORE}.", True),
)
"""Heading, text and whether the pictures are small, of each gallery."""


def _gallery(
    gallery: tuple[str, str, bool], examples: Sequence[Example], pictures: Sequence[bytes | None]
) -> tuple[str, Html]:
    heading, text, is_small = gallery
    figures = []
    for example, data in zip(examples, pictures, strict=True):
        shown = elements.name(example.class_name) if example.class_name else ""
        caption = Html(f"{elements.name(example.name)}: {shown}{elements.escaped(example.text)}")
        without = note(Html(f"{caption} (no picture)"))
        figures.append(without if data is None else elements.picture(data, "jpeg", caption))
    body = elements.grid(figures) if is_small else joined(figures)
    return heading, joined([note(text if examples else "There are none."), body])


def _speed(evaluation: Evaluation) -> Html:
    rows = [(stage, f"{value:.2f}") for stage, value in evaluation.speed_ms.items()]
    rows.append(("sum", f"{sum(evaluation.speed_ms.values()):.2f}"))
    text = "Preprocessing is reading, scaling and padding in one process; several share the work."
    return joined([table(("stage", "ms per image"), rows), note(text)])


def _costs(costs: Mapping[str, str]) -> Html:
    return table(("", "value"), list(costs.items()))


def _data(split: AnnotationTable, problems: Sequence[str]) -> Html:
    crowding = measure_crowding(split)
    lines = [*problems, *([] if crowding.is_within else [crowding.line()])]
    lines += [f"{len(split.skipped_paths)} images left out"] * bool(len(split.skipped_paths))
    if not lines:
        return note("No problem was found in the annotations of this split.")
    return Html(f"<ul>{joined(Html(f'<li>{elements.escaped(line)}</li>') for line in lines)}</ul>")


def _number(value: float) -> str:
    return "–" if value == ABSENT else f"{value:.3f}"
