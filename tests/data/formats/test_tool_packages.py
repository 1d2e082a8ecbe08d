"""Labelling tools' own packages: they read our labels of predictions, and we read what they export.

Datumaro is the library of CVAT's exports, the SDK of Label Studio has its exports.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detect.data.datasets import read_split
from detect.data.recognition import open_data
from detect.inference.outputs import OutputOptions, PredictionWriter
from tests.data.formats.tool_exports import BOXES, EXPECTED, make_export
from tests.data.formats.tool_folders import Found, boxes_of
from tests.inference.samples import FOUND, IMAGE, make_detections, seen, still

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the packages' own

FOUND_BOXES = {
    "a.png": [
        (name, box) for name, box in zip(FOUND.class_names, FOUND.boxes_xyxy_px.astype(float).tolist(), strict=True)
    ],
    "b.png": [],
}
CVAT_HEAD = (
    "<annotations><version>1.1</version><meta><task><size>2</size><mode>{}</mode><labels><label><name>cat</name></label>"
    "<label><name>dog</name></label></labels><original_size><width>40</width><height>30</height></original_size></task>"
    "</meta>{}</annotations>"
)
CVAT_SHAPES = (
    '<box {} occluded="0" xtl="2.00" ytl="3.00" xbr="12.50" ybr="15.00" z_order="0"></box>',
    '<polygon {} occluded="0" points="20.00,5.00;28.00,6.50;24.00,14.00" z_order="0"></polygon>',
)
"""A box, and a polygon whose hull is 20, 5, 28, 14; of 40 x 30 pixels."""
LABEL_CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="cat"/><Label value="dog"/></RectangleLabels></View>"""


@pytest.fixture(scope="module")
def datumaro() -> Any:
    return pytest.importorskip("datumaro", reason="Datumaro is not installed: pip install datumaro")


@pytest.fixture(scope="module")
def label_studio() -> Any:
    return pytest.importorskip("label_studio_sdk", reason="it is not installed: pip install label-studio-sdk")


def predicted(folder: Path, form: str) -> Path:
    """Label files of two images, the second without objects, as ``detect predict --save-labels`` writes them."""
    paths = [folder / name for name in FOUND_BOXES]
    folder.mkdir(exist_ok=True)
    for path in paths:
        cv2.imwrite(str(path), IMAGE)
    with PredictionWriter(folder / "out", [still(path) for path in paths], OutputOptions(labels=form)) as writer:
        writer.add(seen(str(paths[0])))
        writer.add(seen(str(paths[1]), make_detections([])))
    return folder / "out"


def place(files: dict[Path, Path]) -> None:
    for source, target in files.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


# --------------------------------------------------------------------------------- they read what we write


def datumaro_boxes(dataset: Any) -> Found:
    """Class and box of each image in a data set of Datumaro."""
    names = [label.name for label in dataset.categories()[next(iter(dataset.categories()))]]
    found = {}
    for item in dataset:
        boxes = [(names[one.label], [round(side, 2) for side in one.points]) for one in item.annotations]
        found[Path(item.id).name.removesuffix(".png") + ".png"] = sorted(boxes, reverse=True)  # it orders them anew
    return found


def test_datumaro_reads_labels_for_cvat(datumaro: Any, tmp_path: Path) -> None:
    out = predicted(tmp_path, "cvat")
    place({out / "cvat.xml": tmp_path / "task/cvat.xml"})
    place({tmp_path / name: tmp_path / "task/images" / name for name in FOUND_BOXES})
    dataset = datumaro.Dataset.import_from(str(tmp_path / "task"), "cvat")
    assert datumaro_boxes(dataset) == FOUND_BOXES
    scores = [float(one.attributes["score"]) for item in dataset for one in item.annotations]
    assert scores == FOUND.scores.tolist()


def test_datumaro_reads_coco(datumaro: Any, tmp_path: Path) -> None:
    out = predicted(tmp_path, "coco")
    place({out / "coco.json": tmp_path / "task/annotations/instances_train.json"})
    place({tmp_path / name: tmp_path / "task/images/train" / name for name in FOUND_BOXES})
    assert datumaro_boxes(datumaro.Dataset.import_from(str(tmp_path / "task"), "coco_instances")) == FOUND_BOXES


def test_datumaro_reads_voc(datumaro: Any, tmp_path: Path) -> None:
    out = predicted(tmp_path, "voc")
    stems = [Path(name).stem for name in FOUND_BOXES]
    place({out / f"voc/{stem}.xml": tmp_path / f"task/Annotations/{stem}.xml" for stem in stems})
    place({tmp_path / name: tmp_path / "task/JPEGImages" / name for name in FOUND_BOXES})
    place({tmp_path / "a.png": tmp_path / "task/ImageSets/Main/train.txt"})
    (tmp_path / "task/ImageSets/Main/train.txt").write_text("\n".join(stems))
    (tmp_path / "task/labelmap.txt").write_text("cat:::\ndog:::\n")
    assert datumaro_boxes(datumaro.Dataset.import_from(str(tmp_path / "task"), "voc_detection")) == FOUND_BOXES


def test_label_studio_reads_yolo(label_studio: Any, tmp_path: Path) -> None:
    """Its converter makes tasks of them; boxes are in percent of 200 x 100 px."""
    from label_studio_sdk.converter.imports.yolo import convert_yolo_to_ls

    out = predicted(tmp_path, "yolo")
    place({tmp_path / name: out / "images" / name for name in FOUND_BOXES})
    convert_yolo_to_ls(str(out), str(tmp_path / "tasks.json"), out_type="predictions")
    found = {}
    for task in json.loads((tmp_path / "tasks.json").read_text()):
        results = [one["value"] for part in task.get("predictions", []) for one in part["result"]]
        found[Path(task["data"]["image"]).name] = [(one["rectanglelabels"][0], in_pixels(one)) for one in results]
    assert found == FOUND_BOXES


def in_pixels(value: dict[str, float]) -> list[float]:
    left, top, width, height = (value[side] / 100 for side in ("x", "y", "width", "height"))
    return [round(side, 2) for side in (left * 200, top * 100, (left + width) * 200, (top + height) * 100)]


def test_label_studio_accepts_predictions(label_studio: Any, tmp_path: Path) -> None:
    """Its SDK finds no fault in them; accepted as they are, its converter to COCO has the same boxes."""
    from label_studio_sdk.label_interface import LabelInterface

    tasks = json.loads((predicted(tmp_path, "label-studio") / "label-studio.json").read_text())
    interface = LabelInterface(LABEL_CONFIG)
    for number, task in enumerate(tasks):
        assert interface.validate_prediction(task["predictions"][0], return_errors=True) == []
        task |= {"id": number, "annotations": [{**task["predictions"][0], "id": number, "was_cancelled": False}]}
    assert boxes_of(read_split(open_data(str(exported(tmp_path, tasks, "COCO"))), "train"), 2) == FOUND_BOXES


# --------------------------------------------------------------------------------- we read what they write


def exported(folder: Path, tasks: list[dict[str, Any]], form: str) -> Path:
    """What the converter of Label Studio makes of tasks, whose images are in ``folder``."""
    from label_studio_sdk.converter import Converter

    for task in tasks:
        task["data"]["image"] = str(folder / Path(task["data"]["image"]).name.removeprefix("?d="))
    (folder / "tasks.json").write_text(json.dumps(tasks))
    converter = Converter(LABEL_CONFIG, str(folder), download_resources=False)
    out = folder / f"exported {form}"
    convert: Callable[..., None] = getattr(converter, f"convert_to_{form.lower()}")
    convert(str(folder / "tasks.json"), str(out), is_dir=False)
    for task in tasks:
        place({folder / Path(task["data"]["image"]).name: out / "images" / Path(task["data"]["image"]).name})
    return out


def without_backgrounds(found: Found) -> Found:
    """What is expected where a tool leaves out images without objects."""
    return {name: boxes for name, boxes in EXPECTED.items() if boxes or name in found}


def cvat_images() -> str:
    cat, dog = CVAT_SHAPES
    shapes = cat.format('label="cat"') + dog.format('label="dog"')
    size = 'width="40" height="30"'
    images = f'<image id="0" name="a.png" {size}>{shapes}</image><image id="1" name="b.png" {size}></image>'
    return CVAT_HEAD.format("annotation", images)


def cvat_video() -> str:
    """The polygon leaves after the first frame, the box stays where it is."""
    cat, dog = (
        [shape.format(f'frame="{frame}" keyframe="1" outside="{outside}"') for frame, outside in enumerate(gone)]
        for shape, gone in zip(CVAT_SHAPES, ((0, 0), (0, 1)), strict=True)
    )
    tracks = f'<track id="0" label="cat">{"".join(cat)}</track><track id="1" label="dog">{"".join(dog)}</track>'
    return CVAT_HEAD.format("interpolation", tracks)


CAT, DOG = ("cat", [2.0, 3.0, 12.5, 15.0]), ("dog", [20.0, 5.0, 28.0, 14.0])
CVAT_CASES = {
    "images": (cvat_images(), {"a.png": [CAT, DOG], "b.png": []}),
    "video": (cvat_video(), {"frame_000000.png": [CAT, DOG], "frame_000001.png": [CAT]}),
}


@pytest.mark.parametrize("case", CVAT_CASES)
def test_datumaro_finds_the_same_in_cvats_xml(datumaro: Any, tmp_path: Path, case: str) -> None:
    """Boxes, polygons and tracks: the boxes of its annotations are those that we read."""
    text, expected = CVAT_CASES[case]
    (tmp_path / "annotations.xml").write_text(text)
    (tmp_path / "images").mkdir()
    for name in expected:
        cv2.imwrite(str(tmp_path / "images" / name), np.full((30, 40, 3), 90, np.uint8))
    dataset = datumaro.Dataset.import_from(str(tmp_path), "cvat")
    names = [label.name for label in dataset.categories()[next(iter(dataset.categories()))]]
    theirs = {}
    for item in dataset:
        inside = [one for one in item.annotations if not one.attributes.get("outside")]  # it keeps those that have left
        corners = [(names[one.label], np.array(one.get_bbox()).reshape(2, 2).cumsum(0)) for one in inside]
        theirs[f"{item.id}.png"] = sorted((name, box.ravel().round(2).tolist()) for name, box in corners)
    assert theirs == expected
    assert boxes_of(read_split(open_data(str(tmp_path)), "train"), 2) == expected


@pytest.mark.parametrize("form", ["COCO", "YOLO", "VOC"])
def test_label_studio_exports(label_studio: Any, tmp_path: Path, form: str) -> None:
    make_export(tmp_path, "Label Studio, JSON")
    (path,) = tmp_path.glob("*.json")
    tasks = json.loads(path.read_text())
    for task in tasks:
        task["data"]["image"] = task["data"]["image"].rpartition("-")[2]
    place({tmp_path / "images" / name: tmp_path / name for name in EXPECTED})
    found = boxes_of(read_split(open_data(str(exported(tmp_path, tasks, form))), "train"), 2)
    assert found == without_backgrounds(found)


@pytest.mark.parametrize("form", ["cvat", "coco_instances", "voc_detection", "yolo", "yolo_ultralytics"])
def test_datumaro_exports(datumaro: Any, tmp_path: Path, form: str) -> None:
    from datumaro.components.media import Image

    names = list(BOXES)
    boxes = [
        datumaro.Bbox(left, top, right - left, bottom - top, label=names.index(name))
        for name, (left, top, right, bottom) in BOXES.items()
    ]
    pixels = np.full((30, 40, 3), 90, np.uint8)
    items = [
        datumaro.DatasetItem(id=stem, subset=subset, media=Image.from_numpy(pixels), annotations=found)
        for stem, subset, found in (("a", "train", boxes), ("b", "train", []), ("c", "val", boxes))
    ]
    datumaro.Dataset.from_iterable(items, categories=names).export(
        str(tmp_path / "out"), form, save_media=True, image_ext=".jpg"
    )
    table = read_split(open_data(str(tmp_path / "out")), "train")
    found = boxes_of(table, 2)
    assert {name: sorted(boxes) for name, boxes in found.items()} == without_backgrounds(found)
