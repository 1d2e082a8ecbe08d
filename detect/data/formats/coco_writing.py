"""Write COCO JSON. From COCO everything is kept: ids, outlines and unknown keys."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detect.config.data import SplitConfig
from detect.data.annotations import AnnotationTable, Problems
from detect.data.checks import find_file
from detect.data.formats.coco_annotations import id_key
from detect.data.formats.coco_json import is_box, load_coco
from detect.data.formats.labelled_images import LabelledImage
from detect.data.formats.writing import Target
from detect.errors import InputError
from detect.runtime.files import write_text

NEW_ID = "annotation ids that are 0, no whole number or duplicates (renumbered)"


def write_coco(target: Target, folder: Path) -> SplitConfig:
    """Write ``annotations/instances_<split>.json``, and return the split's section of the data config."""
    file = f"annotations/instances_{target.split}.json"
    (content,) = coco_contents(target, [np.arange(len(target.table))])
    write_coco_file(folder / file, content)
    return SplitConfig(target.images, file)


def write_coco_file(path: Path, content: Any) -> None:
    """Write a COCO file, or another one with names, in ASCII: names may hold lone surrogates, which UTF-8 cannot
    encode; refuse NaN.
    """
    try:
        write_text(path, json.dumps(content, allow_nan=False) + "\n")
    except ValueError:
        raise InputError(f"{path.name}: the source holds NaN or Infinity, which JSON cannot") from None


def predicted_coco(images: Sequence[LabelledImage], names: Sequence[str]) -> dict[str, Any]:
    """Return predictions in COCO's format, with the ``score`` of each annotation; category ids are 1..K."""
    category_of = {name: number for number, name in enumerate(names, start=1)}
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, start=1):
        for item in image.objects:
            left, top, right, bottom = item.box
            box = [left, top, round(right - left, 2), round(bottom - top, 2)]
            about = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category_of[item.name or ""]}
            annotations.append(
                {**about, "bbox": box, "area": round(box[2] * box[3], 4), "iscrowd": 0, "score": item.score}
            )
    return {
        "images": [
            {"id": number, "file_name": image.name, "width": image.size_hw[1], "height": image.size_hw[0]}
            for number, image in enumerate(images, start=1)
        ],
        "categories": [{"id": number, "name": name} for name, number in category_of.items()],
        "annotations": annotations,
    }


def coco_contents(target: Target, parts: Sequence[np.ndarray]) -> Iterator[dict[str, Any]]:
    """Yield the images of each part, with their boxes, in COCO's format; the source is parsed once.

    Args:
        target: the split.
        parts: (n,) int64 rows of each part's images, ascending.
    """
    source: dict[str, Any] = {}
    if target.table.positions is not None:
        source = load_coco(find_file(target.config, target.source.annotations or ""), hook=lambda item: item)
    for rows in parts:
        keep = np.zeros(len(target.table), bool)
        keep[rows] = True
        table = target.table.select(keep)
        names = [target.image_names[row] for row in rows.tolist()]
        yield _same_content(target, table, names, source) if source else _new_content(table, names)


def _new_content(table: AnnotationTable, names: list[str]) -> dict[str, Any]:
    content = table.to_coco()
    image_ids = dict(zip(table.image_ids.tolist(), table.image_ids_of_file, strict=True))
    category_ids = dict(zip(table.category_ids.tolist(), table.category_ids_of_file, strict=True))
    for image, name in zip(content["images"], names, strict=True):
        image |= {"id": image_ids[image["id"]], "file_name": name}
    for category in content["categories"]:
        category["id"] = category_ids[category["id"]]
    for annotation in content["annotations"]:
        annotation["image_id"] = image_ids[annotation["image_id"]]
        annotation["category_id"] = category_ids[annotation["category_id"]]
    for mark, values in table.marks.items():
        for annotation, value in zip(content["annotations"], values.tolist(), strict=True):
            annotation[mark] = value
    if table.attributes is not None:
        for annotation, text in zip(content["annotations"], table.attributes.tolist(), strict=True):
            annotation["attributes"] = json.loads(text or "{}")
    return content


def _same_content(target: Target, table: AnnotationTable, names: list[str], source: dict[str, Any]) -> dict[str, Any]:
    """Return the source's own entries of the images and boxes that are used, and its other keys."""
    assert table.positions is not None
    content = dict(source)
    image_of_id = {id_key(image.get("id")): image for image in reversed(content["images"]) if isinstance(image, dict)}
    images = []
    for image_id, name, size_hw in zip(table.image_ids_of_file, names, table.sizes_hw.tolist(), strict=True):
        size = dict(zip(("height", "width"), size_hw, strict=True))
        images.append({**image_of_id[image_id], "id": image_id, "file_name": name, **size})
    used = set(table.category_ids_of_file)
    content["images"] = images
    by_id = {key: {**one, "id": key} for one in content["categories"] if (key := id_key(one["id"])) in used}
    content["categories"] = list(by_id.values())
    if table.is_labelled:
        annotations = [content["annotations"][position] for position in table.positions.tolist()]
        content["annotations"] = _mended(annotations, table, target.losses)
    return content


def _mended(entries: list[dict[str, Any]], table: AnnotationTable, losses: Problems) -> list[dict[str, Any]]:
    """Return the entries with distinct ids, the ids of their images and categories, boxes, and valid areas."""
    ids = [entry.get("id") for entry in entries]
    counts = Counter(number for number in ids if type(number) is int)
    following = max(counts, default=0) + 1
    image_ids, category_ids = table.image_ids_of_file, table.category_ids_of_file
    columns = (table.image_of_box, table.labels, table.exact_xywh_px, table.areas)
    done = []
    for entry, number, row, label, box, area in zip(
        entries, ids, *(column.tolist() for column in columns), strict=True
    ):
        if type(number) is not int or number == 0 or counts[number] > 1:
            losses.add(NEW_ID, f"{str(number)[:40]!r} is {following}")
            number = following
            following += 1
        box = entry["bbox"] if is_box(entry.get("bbox")) and list(map(float, entry["bbox"])) == box else box
        own = {"id": number, "image_id": image_ids[row], "category_id": category_ids[label], "bbox": box, "area": area}
        done.append({**entry, **own})
    return done
