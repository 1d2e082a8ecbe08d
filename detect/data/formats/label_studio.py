"""Label Studio's own JSON and JSON-MIN: one file, a list of tasks, an image each.

Coordinates are percent of the image. A box is turned about its top left corner by ``rotation`` degrees, clockwise, in
pixels. A task may have annotations of several people; in JSON each has its list ``result``, in JSON-MIN an entry.

Source: https://labelstud.io/guide/export and https://labelstud.io/guide/predictions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from detect.config.data import DataConfig
from detect.data.annotations import AnnotationTable, Problems, Understood
from detect.data.checks import find_annotations, find_file
from detect.data.folders import is_image_name
from detect.data.formats.annotation_files import number_of
from detect.data.formats.labelled_images import (
    BAD_ENTRY,
    BAD_SHAPE,
    NO_BOX,
    OUTLINE,
    ROTATED,
    Box,
    LabelFile,
    LabelledImage,
    LabelledObject,
    around,
    around_ellipse,
    around_rotated,
    find_images,
    is_usable,
    load_json,
    table_of_images,
)
from detect.data.formats.layouts import FoundSplits, find_label_files, json_tool
from detect.errors import InputError

UNLABELLED = "tasks without an annotation, or skipped by the annotator (left out)"
OTHER_ANNOTATION = "further annotations of an image by others (the ground truth taken, else the newest)"
OTHER_RESULT = Understood("choices, relations and other results that are no boxes (left out)")
PREDICTIONS = "tasks whose predictions are taken, because no task of the file has an annotation"
TURNED = "images of another shape than when they were labelled, as after a rotation (look at their boxes)"

_NAMES = re.compile(r"(rectangle|polygon|ellipse|brush|keypoint|vector|)labels")
_IMAGE_KEYS = ("image", "img", "url", "image_url", "photo")
_MAX_TURN = 0.1  # of the logarithm of width / height

Shape = dict[str, Any]
"""Value of a result, with ``original_width`` and ``original_height``."""


class _Annotation(NamedTuple):
    """One person's shapes of an image; of several the one with the largest ``rank`` is taken."""

    rank: tuple[bool, str, float]
    shapes: list[Shape]


class _Task(NamedTuple):
    image: str
    annotations: list[_Annotation]
    predictions: list[_Annotation]


def read_label_studio(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split; ``InputError`` if the file is missing or not Label Studio's, or no image can be used.

    Of several annotations of an image the ground truth is taken, else the newest. A task that nobody annotated is no
    background and left out. Where no task has an annotation, predictions are taken, and counted.
    """
    problems = Problems()
    content = _read_file(config, problems, split)
    paths = find_images(config, split, content.images, problems)
    read = partial(_read_file, config, Problems())
    table = table_of_images(config, split, content, paths, read, problems, "xywh shares")
    declared = {path: image.size_hw for image, path in zip(content.images, paths, strict=True)}
    for row, (height, width) in enumerate(table.sizes_hw.tolist()):
        old_height, old_width = declared[table.path(row)]
        if old_height and old_width and abs(math.log(width * old_height / (height * old_width))) > _MAX_TURN:
            problems.add(TURNED, f"{table.path(row).name}: {old_width} x {old_height}, now {width} x {height}")
    return table


def _read_file(config: DataConfig, problems: Problems, split: str) -> LabelFile:
    path = find_file(config, find_annotations(config, split))
    entries = load_json(path)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: is not Label Studio's JSON: must be a list of tasks; export as JSON or JSON-MIN")
    tasks = _merged(task for number, entry in enumerate(entries) for task in _task(entry, number, problems))
    is_predicted = not any(task.annotations for task in tasks) and any(task.predictions for task in tasks)
    images = []
    for task in tasks:
        annotations = task.predictions if is_predicted else task.annotations
        if not annotations:
            problems.add(UNLABELLED, task.image[:100])
            continue
        if is_predicted:
            problems.add(PREDICTIONS, task.image[:100])
        for _ in annotations[1:]:
            problems.add(OTHER_ANNOTATION, task.image[:100])
        images.append(_image(task.image, max(annotations, key=lambda one: one.rank).shapes, problems))
    if not images:
        raise InputError(f"{path}: no task has an annotation: {'; '.join(problems.summary())}")
    return LabelFile(images)


def _merged(tasks: Iterable[_Task]) -> list[_Task]:
    """Join the entries of an image: JSON-MIN has one for each annotation."""
    by_image: dict[str, _Task] = {}
    for task in tasks:
        first = by_image.setdefault(task.image, task)
        if first is not task:
            first.annotations.extend(task.annotations)
            first.predictions.extend(task.predictions)
    return list(by_image.values())


def _task(entry: Any, number: int, problems: Problems) -> Iterator[_Task]:
    """Yield the task of an entry, in either form; none, counted, without the name of an image."""
    is_whole = isinstance(entry, dict) and isinstance(entry.get("data"), dict)
    image = _image_name(entry["data"] if is_whole else entry) if isinstance(entry, dict) else None
    image = image or (entry.get("file_upload") if isinstance(entry, dict) else None)
    if not isinstance(image, str) or not image:
        problems.add(BAD_ENTRY, f"task {number}: {str(entry)[:80]}")
    elif is_whole:
        own = entry.get("annotations", entry.get("completions"))
        yield _Task(image, _annotations(own), _annotations(entry.get("predictions")))
    else:
        shapes = [one for value in entry.values() if isinstance(value, list) for one in value if isinstance(one, dict)]
        yield _Task(image, [_Annotation(_rank(entry), shapes)], [])


def _image_name(data: dict[str, Any]) -> str | None:
    """Return the value that is the address of an image."""
    texts = {str(key).lower(): value for key, value in data.items() if isinstance(value, str)}
    by_suffix = [text for text in texts.values() if is_image_name(re.split(r"[?#](?!d=)", text)[0])]
    by_key = [texts[key] for key in _IMAGE_KEYS if key in texts]
    return next(iter([*by_suffix, *by_key]), None)


def _annotations(entries: Any) -> list[_Annotation]:
    """Return annotations or predictions of a task, without those of people who skipped it."""
    found = []
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or entry.get("was_cancelled") or entry.get("skipped"):
            continue
        result = entry.get("result")
        if isinstance(result, list):
            found.append(_Annotation(_rank(entry), [_shape(one) for one in result if isinstance(one, dict)]))
    return found


def _shape(result: dict[str, Any]) -> Shape:
    value = result.get("value")
    sizes = {side: result.get(side) for side in ("original_width", "original_height")}
    return {**(value if isinstance(value, dict) else {}), **sizes, "type": result.get("type")}


def _rank(entry: dict[str, Any]) -> tuple[bool, str, float]:
    date = entry.get("updated_at") or entry.get("created_at") or ""
    number = number_of(entry.get("annotation_id", entry.get("id")))
    return entry.get("ground_truth") is True, str(date), -1.0 if math.isnan(number) else number


def _image(name: str, shapes: list[Shape], problems: Problems) -> LabelledImage:
    objects: list[LabelledObject] = []
    size_hw = (0, 0)
    for shape in shapes:
        sides = [number_of(shape.get(side)) for side in ("original_height", "original_width")]
        if all(0 < side < 2**31 for side in sides):
            size_hw = (int(sides[0]), int(sides[1]))
        objects += _objects(shape, size_hw, name, problems)
    return LabelledImage(name, tuple(objects), size_hw)


def _objects(shape: Shape, size_hw: tuple[int, int], image: str, problems: Problems) -> list[LabelledObject]:
    """Return the objects of a shape: one for each of its classes; none, counted, where it has no box."""
    key = next((key for key in shape if _NAMES.fullmatch(key)), None)
    names = shape[key] if key else None
    if key is None or key in ("brushlabels", "keypointlabels", "vectorlabels"):
        is_plain = shape.get("type") in ("rectangle", "polygon", "ellipse")  # a result with its class follows
        if not is_plain:
            problems.add(NO_BOX if key else OTHER_RESULT, f"{key or shape.get('type')} in {image[-100:]}"[:200])
        return []
    box = _box(shape, size_hw)
    place = f"{str(names)[:60]} in {image[-100:]}"
    if not isinstance(names, list) or not names or not all(is_usable(name, box) for name in names):
        problems.add(BAD_SHAPE, place)
        return []
    if "points" in shape or "radiusX" in shape:
        problems.add(OUTLINE, place)
    elif number_of(shape.get("rotation") or 0):
        problems.add(ROTATED, place)
    left, top, right, bottom = box
    shares = (left / 100, top / 100, (right - left) / 100, (bottom - top) / 100)
    return [LabelledObject(name.strip(), shares) for name in names]


def _box(shape: Shape, size_hw: tuple[int, int]) -> Box:
    """Return the box around a shape in percent; NaN where numbers are missing, or the size for a turned one."""
    points = shape.get("points")
    if isinstance(points, list):
        return around(points)
    turn, x, y = (number_of(shape.get(key)) for key in ("rotation", "x", "y"))
    keys = ("radiusX", "radiusY") if "radiusX" in shape else ("width", "height")
    width, height = map(number_of, map(shape.get, keys))
    is_turned = not (math.isnan(turn) or turn == 0)
    # Percent of different sides: the angle holds where a percent is as long in both directions.
    factor = size_hw[0] / size_hw[1] if all(size_hw) else math.nan if is_turned else 1.0
    if "radiusX" in shape:
        box = around_ellipse((x, y * factor), (width, height * factor), turn if is_turned else 0.0)
    elif is_turned:
        whole = (x, y * factor, x + width, (y + height) * factor)
        box = around_rotated(whole, turn, (x, y * factor))
    else:
        return x, y, x + width, y + height
    return box[0], box[1] / factor, box[2], box[3] / factor


# ------------------------------------------------------------------------------------------------- writing


def label_studio_tasks(images: Iterable[LabelledImage], model: str) -> list[dict[str, Any]]:
    """Return tasks with predictions, to import into a project with ``<Image name="image" value="$image"/>`` and
    ``<RectangleLabels name="label" toName="image">``.

    Images are addressed as files of local storage. ``model`` is the ``model_version``; a prediction's score is the
    mean of its boxes'.
    """
    tasks = []
    for image in images:
        scores = [item.score for item in image.objects if item.score is not None]
        results = [_result(item, image.size_hw, number) for number, item in enumerate(image.objects)]
        prediction = {"model_version": model, "score": round(sum(scores) / max(len(scores), 1), 5), "result": results}
        tasks.append({"data": {"image": f"/data/local-files/?d={image.name}"}, "predictions": [prediction]})
    return tasks


def _result(item: LabelledObject, size_hw: tuple[int, int], number: int) -> dict[str, Any]:
    left, top, right, bottom = item.box
    height, width = size_hw
    sides = (100 * left / width, 100 * top / height, 100 * (right - left) / width, 100 * (bottom - top) / height)
    value = dict(zip(("x", "y", "width", "height"), sides, strict=True))
    about = {"type": "rectanglelabels", "from_name": "label", "to_name": "image", "image_rotation": 0}
    return {
        "id": f"box{number}",
        **about,
        "original_width": width,
        "original_height": height,
        "value": {**value, "rotation": 0, "rectanglelabels": [item.name]},
        **({} if item.score is None else {"score": item.score}),
    }


# -------------------------------------------------------------------------------------------------- layout


def find_label_studio(folder: Path) -> FoundSplits:
    """Find Label Studio's JSON files by their content."""
    return find_label_files(folder, (".json",), lambda path: json_tool(path) == "label-studio", "Label Studio")
