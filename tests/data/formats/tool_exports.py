"""Two boxes and an image without any, as each labelling tool exports them in each of its forms.

Made by hand after the tools' documentation.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.data.layouts import images, write

BOXES = {"cat": (4, 6, 24, 18), "dog": (10, 12, 30, 27)}
"""Left, top, right, bottom, in an image of 40 x 30 px."""
EXPECTED = {"a.jpg": [(name, list(map(float, box))) for name, box in BOXES.items()], "b.jpg": []}

Files = Mapping[str, str]


def xywh(box: tuple[int, ...]) -> list[int]:
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]


def percent(box: tuple[int, ...]) -> dict[str, float]:
    left, top, width, height = xywh(box)
    return {"x": left / 0.4, "y": top / 0.3, "width": width / 0.4, "height": height / 0.3}


def yolo_lines(*classes: str) -> str:
    lines = []
    for name, (left, top, right, bottom) in BOXES.items():
        shares = (left + right) / 80, (top + bottom) / 60, (right - left) / 40, (bottom - top) / 30
        lines.append(" ".join([str(classes.index(name)), *(f"{share:.8f}" for share in shares)]))
    return "\n".join(lines)


def coco(first_id: int, category_keys: dict[str, Any], annotation_keys: dict[str, Any], *further: Any) -> str:
    categories = [{"id": first_id + n, "name": name, **category_keys} for n, name in enumerate(BOXES)]
    annotations = [
        {"id": n, "image_id": 1, "category_id": first_id + n, "bbox": xywh(box), "iscrowd": 0, **annotation_keys}
        for n, box in enumerate(BOXES.values())
    ]
    pictures = [{"id": n, "file_name": name, "width": 40, "height": 30} for n, name in ((1, "a.jpg"), (2, "b.jpg"))]
    return json.dumps({"categories": [*further, *categories], "images": pictures, "annotations": annotations})


def voc(name: str, boxes: Mapping[str, tuple[int, ...]], more: str) -> str:
    objects = "".join(
        f"<object><name>{label}</name>{more}<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>"
        f"<ymax>{box[3]}</ymax></bndbox></object>"
        for label, box in boxes.items()
    )
    size = "<size><width>40</width><height>30</height><depth>3</depth></size><segmented>0</segmented>"
    return f"<annotation><folder></folder><filename>{name}</filename>{size}{objects}</annotation>"


# ---------------------------------------------------------------------------------------------------- CVAT

LABELS = "".join(f"<label><name>{name}</name><color>#fa3253</color><type>any</type></label>" for name in BOXES)
SIDES = ("xtl", "ytl", "xbr", "ybr")


def cvat_images(owner: str, more: str = "") -> Files:
    """``owner`` is the element that holds the labels: a task, a job or a project, whose images have a subset."""
    boxes = "".join(
        f'<box label="{label}" source="manual" occluded="0" '
        + " ".join(f'{side}="{value:.2f}"' for side, value in zip(SIDES, box, strict=True))
        + ' z_order="0"></box>'
        for label, box in BOXES.items()
    )
    text = (
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><{owner}><id>7</id>'
        f"<labels>{LABELS}</labels></{owner}><dumped>2024-01-01 00:00:00+00:00</dumped></meta>"
        f'<image id="0" name="a.jpg" {more}width="40" height="30">{boxes}</image>'
        f'<image id="1" name="b.jpg" {more}width="40" height="30"></image></annotations>'
    )
    return {"annotations.xml": text}


def cvat_video() -> Files:
    """A track for each object, which is outside of the second frame."""
    tracks = "".join(
        f'<track id="{n}" label="{label}" source="manual">'
        + "".join(
            f'<box frame="{frame}" keyframe="1" outside="{frame}" occluded="0" '
            + " ".join(f'{side}="{value:.2f}"' for side, value in zip(SIDES, box, strict=True))
            + ' z_order="0"></box>'
            for frame in (0, 1)
        )
        + "</track>"
        for n, (label, box) in enumerate(BOXES.items())
    )
    return {
        "annotations.xml": f"<annotations><version>1.1</version><meta><task><size>2</size><mode>interpolation</mode>"
        f"<labels>{LABELS}</labels></task></meta>{tracks}</annotations>"
    }


def cvat_voc() -> Files:
    more = "<truncated>0</truncated><occluded>0</occluded><difficult>0</difficult>"
    return {
        "Annotations/a.xml": voc("a.jpg", BOXES, more),
        "Annotations/b.xml": voc("b.jpg", {}, ""),
        "ImageSets/Main/default.txt": "a\nb\n",
        "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\ndog:51,221,255::\n",
    }


def cvat_yolo() -> Files:
    lists = "data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n"
    return {
        "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
        "obj.names": "cat\ndog\n",
        "train.txt": lists,
        "obj_train_data/a.txt": yolo_lines(*BOXES),
        "obj_train_data/b.txt": "",
    }


def cvat_ultralytics() -> Files:
    return {
        "data.yaml": "names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\n",
        "train.txt": "data/images/train/a.jpg\ndata/images/train/b.jpg\n",
        "labels/train/a.txt": yolo_lines(*BOXES),
    }


CVAT_COCO = coco(1, {"supercategory": ""}, {"segmentation": [], "area": 1.0, "attributes": {"occluded": False}})

# -------------------------------------------------------------------------------------------- Label Studio

SIZE = {"original_width": 40, "original_height": 30, "image_rotation": 0}


def label_studio_json(answers: str, more: dict[str, Any]) -> Files:
    """``answers`` is the key of the annotations: ``completions`` before version 1.0."""
    results = [
        {
            **({"id": label, "type": "rectanglelabels", "from_name": "label", "to_name": "image"} | SIZE),
            "value": {**percent(box), "rotation": 0, "rectanglelabels": [label]},
        }
        for label, box in BOXES.items()
    ]
    tasks = [
        {"id": n, "data": {"image": f"/data/upload/1/{n:08x}-{name}"}, answers: [{"id": n, "result": found, **more}]}
        for n, (name, found) in enumerate((("a.jpg", results), ("b.jpg", [])))
    ]
    return {"project-1-at-2024-01-01-00-00-1f2e3d4c.json": json.dumps(tasks)}


def label_studio_min() -> Files:
    shapes = [
        {**percent(box), "rotation": 0, "rectanglelabels": [label], "original_width": 40, "original_height": 30}
        for label, box in BOXES.items()
    ]
    rows = [
        {"image": "/data/local-files/?d=photos/a.jpg", "id": 1, "label": shapes, "annotator": 1, "annotation_id": 1},
        {"image": "/data/local-files/?d=photos/b.jpg", "id": 2, "annotator": 1, "annotation_id": 2},
    ]
    return {"project-1-at-2024.json": json.dumps(rows)}


LABEL_STUDIO_COCO = coco(0, {}, {"segmentation": [], "ignore": 0, "area": 1})
LABEL_STUDIO_YOLO = {
    "classes.txt": "cat\ndog\n",
    "notes.json": json.dumps({"categories": [{"id": n, "name": name} for n, name in enumerate(BOXES)], "info": {}}),
    "labels/a.txt": yolo_lines(*BOXES),
    "labels/b.txt": "",
}

# ------------------------------------------------------------------------------------------------ Roboflow

ROBOFLOW_COCO = coco(
    1, {"supercategory": "pets"}, {"area": 1, "segmentation": []}, {"id": 0, "name": "pets", "supercategory": "none"}
)
ROBOFLOW_YAML = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'dog']\n"
ROBOFLOW_VOC_KEYS = "<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><occluded>0</occluded>"
ROBOFLOW_VOC = {
    "train/a.xml": voc("a.jpg", BOXES, ROBOFLOW_VOC_KEYS),
    "train/b.xml": voc("b.jpg", {}, ""),
    "README.roboflow.txt": "pets - v1\n",
}


def roboflow_yolo(more: str) -> Files:
    return {"data.yaml": ROBOFLOW_YAML + more, "train/labels/a.txt": yolo_lines(*BOXES), "train/labels/b.txt": ""}


# ----------------------------------------------------------------------------------- labelme, VIA, Supervisely


def labelme(version: str, **keys: Any) -> Files:
    def page(name: str, boxes: Mapping[str, tuple[int, ...]]) -> str:
        shapes = [
            {"label": label, "points": [box[:2], box[2:]], "shape_type": "rectangle", **keys}
            for label, box in boxes.items()
        ]
        about = {"version": version, "flags": {}, "imagePath": name, "imageData": None}
        return json.dumps({**about, "imageHeight": 30, "imageWidth": 40, "shapes": shapes})

    return {"a.json": page("a.jpg", BOXES), "b.json": page("b.jpg", {})}


def via_regions() -> list[dict[str, Any]]:
    regions = []
    for label, box in BOXES.items():
        place = dict(zip(("x", "y", "width", "height"), xywh(box), strict=True))
        regions.append({"shape_attributes": {"name": "rect", **place}, "region_attributes": {"class": label}})
    return regions


def via_json(wrap: Callable[[dict[str, Any]], dict[str, Any]], *, numbered: bool = False) -> Files:
    """Version 1 numbers the regions."""
    regions: Any = via_regions()
    regions = {str(n): region for n, region in enumerate(regions)} if numbered else regions
    entries = {
        f"{name}123": {"filename": name, "size": 123, "regions": found, "file_attributes": {}}
        for name, found in (("a.jpg", regions), ("b.jpg", type(regions)()))
    }
    return {"via.json": json.dumps(wrap(entries))}


def via_csv(mark: str) -> Files:
    """Version 1 begins the first line with a mark."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    names = "filename file_size file_attributes region_count region_id region_shape_attributes region_attributes"
    rows.writerow([mark + names.split()[0], *names.split()[1:]])
    for n, region in enumerate(via_regions()):
        rows.writerow(["a.jpg", 1, "{}", 2, n, *(json.dumps(part) for part in region.values())])
    rows.writerow(["b.jpg", 1, "{}", 0, 0, "{}", "{}"])
    return {"via.csv": text.getvalue()}


def supervisely(suffix: str, **keys: Any) -> Files:
    objects = [
        {
            "classTitle": label,
            "geometryType": "rectangle",
            "tags": [],
            "points": {"exterior": [box[:2], box[2:]], "interior": []},
            **keys,
        }
        for label, box in BOXES.items()
    ]
    pages = {
        f"ds0/ann/{name}{suffix}": json.dumps(
            {"description": "", "tags": [], "size": {"height": 30, "width": 40}, "objects": found}
        )
        for name, found in (("a.jpg", objects), ("b.jpg", []))
    }
    classes = [{"title": name, "shape": "rectangle", "color": "#0F8A11"} for name in BOXES]
    return {"meta.json": json.dumps({"classes": classes, "tags": []}), **pages}


EXPORTS: dict[str, tuple[str, str, Files]] = {
    "CVAT for images 1.1": ("cvat", "images/{}", cvat_images("task")),
    "CVAT for images 1.1, of a job": ("cvat", "images/{}", cvat_images("job")),
    "CVAT for images 1.1, of a project": ("cvat", "images/Train/{}", cvat_images("project", 'subset="Train" ')),
    "CVAT for images 1.1, without subsets": ("cvat", "images/default/{}", cvat_images("project", 'subset="default" ')),
    "CVAT for video 1.1": ("cvat", "images/frame_00000{}", cvat_video()),
    "CVAT, COCO 1.0": ("coco", "images/default/{}", {"annotations/instances_default.json": CVAT_COCO}),
    "CVAT, Pascal VOC 1.1": ("voc", "JPEGImages/{}", cvat_voc()),
    "CVAT, YOLO 1.1": ("yolo", "obj_train_data/{}", cvat_yolo()),
    "CVAT, Ultralytics YOLO": ("yolo", "images/train/{}", cvat_ultralytics()),
    "Label Studio, JSON": ("label-studio", "images/{}", label_studio_json("annotations", {"was_cancelled": False})),
    "Label Studio 0.9, JSON": ("label-studio", "images/{}", label_studio_json("completions", {})),
    "Label Studio, JSON-MIN": ("label-studio", "images/{}", label_studio_min()),
    "Label Studio, COCO": ("coco", "images/{}", {"result.json": LABEL_STUDIO_COCO}),
    "Label Studio, YOLO": ("yolo", "images/{}", LABEL_STUDIO_YOLO),
    "Roboflow, COCO": ("coco", "train/{}", {"train/_annotations.coco.json": ROBOFLOW_COCO}),
    "Roboflow, YOLOv5": ("yolo", "train/images/{}", roboflow_yolo("")),
    "Roboflow, YOLOv8": ("yolo", "train/images/{}", roboflow_yolo("\nroboflow:\n  license: CC BY 4.0\n  version: 1\n")),
    "Roboflow, Pascal VOC": ("voc", "train/{}", ROBOFLOW_VOC),
    "labelme 3": ("labelme", "{}", labelme("3.16.7", line_color=None, fill_color=None)),
    "labelme 4": ("labelme", "{}", labelme("4.5.6", group_id=None, flags={})),
    "labelme 5": ("labelme", "{}", labelme("5.4.1", group_id=None, description="", flags={}, mask=None)),
    "VIA 1, JSON": ("via", "{}", via_json(lambda entries: entries, numbered=True)),
    "VIA 1, CSV": ("via", "{}", via_csv("#")),
    "VIA 2, JSON": ("via", "{}", via_json(lambda entries: entries)),
    "VIA 2, CSV": ("via", "{}", via_csv("")),
    "VIA 2, project": ("via", "{}", via_json(lambda entries: {"_via_settings": {}, "_via_img_metadata": entries})),
    "Supervisely": ("supervisely", "ds0/img/{}", supervisely(".json", id=5, classId=2, labelerLogin="me")),
    "Supervisely, early": ("supervisely", "ds0/img/{}", supervisely(".json", bitmap=None)),
}
"""Format that is recognised, places of the images, and the files, by the name of the export."""


def make_export(root: Path, export: str, *, with_images: bool = True) -> dict[str, Path]:
    """Write an export of ``EXPORTS``; returns the paths of ``a.jpg`` and ``b.jpg``, which a video calls otherwise."""
    _, place, files = EXPORTS[export]
    names = {"a.jpg": "0.jpg", "b.jpg": "1.jpg"} if "video" in export else {"a.jpg": "a.jpg", "b.jpg": "b.jpg"}
    paths = {name: root / place.format(written) for name, written in names.items()}
    if with_images:
        for path in paths.values():
            images(path.parent, path.name)
    write(root, dict(files))
    return paths
