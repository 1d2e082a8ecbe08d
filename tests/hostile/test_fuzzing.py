"""Readers of strangers' files give a result that makes sense, or one line that says what is wrong; nothing else.

In the fast suite each reader has twenty cases, always the same. The slow run has more than 100,000 new ones:

python -m pytest tests/hostile/test_fuzzing.py -m slow -s -n 0
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from PIL import Image

from detect.config.base import build, to_plain
from detect.config.data import DataConfig, SplitConfig, load_data_config
from detect.config.recipe import (
    ClassificationRecipe,
    DetectionRecipe,
    load_classification_recipe,
    load_detection_recipe,
)
from detect.config.run import load_run_config
from detect.config.sweep import load_sweep_config
from detect.data.formats.coco import read_coco
from detect.data.formats.cvat import read_cvat
from detect.data.formats.label_studio import read_label_studio
from detect.data.formats.labelme import read_labelme
from detect.data.formats.shards import DATASET_FILE, read_shards
from detect.data.formats.supervisely import read_supervisely
from detect.data.formats.via import read_via
from detect.data.formats.visdrone import read_visdrone
from detect.data.formats.voc import read_voc
from detect.data.formats.yolo import read_yolo
from detect.data.images import MAX_PIXELS, decode_image, read_header
from detect.models.build import build_graph
from detect.models.catalog import find_definition
from detect.safety.untrusted import AllocationLimit
from tests.data.shard_files import CATEGORIES, document, png, write_tar
from tests.hostile.fuzzed import Reader, check_message, check_table, damaged_bytes, damaged_values, message_of, within
from tests.training.small import TINY

FAST_CASES = 20
MAX_SECONDS = 20
"""Of a case, on a machine that does much beside it."""
PHASES = (Phase.generate,)
"""A failure names the file; a seed cannot be made smaller."""
MAX_GROWTH_MB = 2500
"""Of the process over all cases of a reader: the largest allowed image has 540 MB, and more than twice on its way."""

COCO = {
    "info": {"year": 2024},
    "images": [{"id": number, "file_name": f"{number}.png", "height": 8, "width": 12} for number in range(3)],
    "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0},
        {"id": 2, "image_id": 0, "category_id": 7, "bbox": [0.5, 0, 8, 8], "area": 60.5, "iscrowd": 1},
        {"id": 3, "image_id": 2, "category_id": 7, "bbox": [4, 4, 2, 2], "segmentation": [[1, 2, 3, 4, 5, 6]]},
    ],
}
VOC = """\
<annotation><filename>0.png</filename><size><width>12</width><height>8</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>4</xmax><ymax>6</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>0.5</xmin><ymin>0</ymin><xmax>8</xmax><ymax>8</ymax></bndbox></object></annotation>
"""
YOLO = b"0 0.5 0.5 0.25 0.25\n1 0.25 0.5 0.125 1\n2 0.1 0.1 0.3 0.1 0.3 0.4\n"
VISDRONE = b"1,2,3,4,1,1,0,0\n0,0,8,8,0,4,1,2\n4,4,2,2,1,0,0,0\n"
CVAT = """\
<annotations><meta><task><labels><label><name>cat</name><type>any</type></label></labels></task></meta>
<image id="0" name="0.png" width="12" height="8">
<box label="cat" occluded="1" xtl="1" ytl="2" xbr="4" ybr="6" rotation="30"><attribute name="wet">no</attribute></box>
<polygon label="dog" points="1,2;5.5,3;4,7"/><ellipse label="cat" cx="4" cy="4" rx="2" ry="3"/></image>
<track id="1" label="cat"><box frame="1" outside="0" xtl="1" ytl="2" xbr="4" ybr="6"/></track></annotations>
"""
SIZES = {"original_width": 12, "original_height": 8}
PERCENT = {"x": 10, "y": 20, "width": 50, "height": 40, "rotation": 30, "rectanglelabels": ["cat"]}
LABEL_STUDIO = [
    {
        "data": {"image": "/data/upload/1/0.png"},
        "annotations": [{"id": 3, "result": [{"type": "rectanglelabels", "value": PERCENT, **SIZES}]}],
        "predictions": [{"result": [{"type": "polygonlabels", "value": {"points": [[1, 2]], "polygonlabels": ["a"]}}]}],
    },
    {"image": "1.png", "label": [{**PERCENT, **SIZES}], "annotation_id": 4, "updated_at": "2024"},
]
LABELME = {
    "shapes": [
        {"label": "cat", "shape_type": "rectangle", "points": [[1, 2], [4, 6]], "flags": {"occluded": True}},
        {"label": "dog", "shape_type": "circle", "points": [[4, 4], [5, 6]], "group_id": 1},
    ],
    "imagePath": "0.png",
    "imageHeight": 8,
    "imageWidth": 12,
}
REGION = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}
ELLIPSE = {"name": "ellipse", "cx": 4, "cy": 4, "rx": 2, "ry": 3, "theta": 0.5}
VIA = {
    "0.png1": {
        "filename": "0.png",
        "regions": [
            {"shape_attributes": REGION, "region_attributes": {"class": "cat"}},
            {"shape_attributes": ELLIPSE, "region_attributes": {"class": {"dog": True}, "note": "x"}},
        ],
    }
}
VIA_CSV = b"""\
filename,region_shape_attributes,region_attributes
0.png,"{""name"":""rect"",""x"":1,""y"":2,""width"":3,""height"":4}","{""class"":""cat""}"
1.png,"{}","{}"
"""
CORNERS = {"exterior": [[1, 2], [4, 6]]}
SUPERVISELY = {
    "size": {"height": 8, "width": 12},
    "objects": [
        {"classTitle": "cat", "geometryType": "rectangle", "points": CORNERS, "tags": [{"name": "a"}]},
        {"classTitle": "dog", "geometryType": "bitmap", "bitmap": {"data": "eJzrDPBz5+WS4mI=", "origin": [1, 2]}},
    ],
}
BOXES = document([1, 2, 3, 4], [0, 0, 8, 8], width=30, height=20)
DATA = {
    "name": "x",
    "root": "world",
    "format": "coco",
    "names": ["cat"],
    "background": "keep",
    "splits": {
        "train": {"images": "images", "annotations": "a.json"},
        "val": {"images": "images", "annotations": "xml", "list": "list.txt"},
    },
}
RECIPE = to_plain(build(DetectionRecipe, {}, "here"))
CLASS_RECIPE = to_plain(build(ClassificationRecipe, {}, "here"))
RUN = {"model": "yolov5n", "data": "bccd", "recipe": "default", "set": {"epochs": 3}}
SWEEP = {
    "name": "x",
    "model": "yolov5n",
    "data": "bccd",
    "trials": 3,
    "space": {"optimizer.lr": {"low": 0.001, "high": 0.1, "log": True}, "ema.decay": {"choices": [0, 0.9]}},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small images, and a file for every reader to be damaged."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("images", "xml", "yolo", "visdrone", "labelme", "ds/ann", "ds/img"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(folder / f"images/{number}.png"), np.full((8, 12, 3), number, np.uint8))
    (folder / "list.txt").write_text("0\n1\n")
    cv2.imwrite(str(folder / "ds/img/0.png"), np.zeros((8, 12, 3), np.uint8))
    for stem in "01":
        (folder / f"xml/{stem}.xml").write_text(VOC)
        (folder / f"yolo/{stem}.txt").write_bytes(YOLO)
        (folder / f"visdrone/{stem}.txt").write_bytes(VISDRONE)
    (folder / DATASET_FILE).write_text(json.dumps({"categories": CATEGORIES}))
    return folder


def shard(folder: Path) -> bytes:
    """A tar file of two images and their annotations."""
    members = [(f"{key}.{suffix}", content) for key in "01" for suffix, content in (("png", png()), ("json", BOXES))]
    return write_tar(folder / "train-0.tar", members).read_bytes()


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode()  # with escapes for lone surrogates


def as_yaml(content: Any) -> bytes:
    return yaml.safe_dump(content).encode("utf-8", "surrogatepass")


def split(images: str = "images", names: tuple[str, ...] | None = None, **words: str) -> DataConfig:
    return DataConfig("x", "", {"train": SplitConfig(images, **words)}, names=names)


def read_split(world: Path, file: str, read: Callable[..., Any], config: DataConfig) -> Callable[[bytes], None]:
    """Put the damaged file in its place, read the split, and check what has come of it."""
    here = DataConfig(**{**vars(config), "root": str(world)})

    def run(content: bytes) -> None:
        (world / file).write_bytes(content)
        check_table(read(here, "train"))

    return run


def read_config(world: Path, load: Callable[[str], Any]) -> Callable[[bytes], None]:
    def run(content: bytes) -> None:
        path = world / "config.yaml"
        path.write_bytes(content)
        json.dumps(to_plain(load(str(path))))

    return run


def read_model(world: Path) -> Callable[[bytes], None]:
    def run(content: bytes) -> None:
        path = world / "model.yaml"
        path.write_bytes(content)
        with AllocationLimit(10**6):  # the limit itself has tests of its own, which take their time
            graph = build_graph(find_definition(str(path)), 3)
        assert graph.max_reduction >= 1

    return run


def read_pixels(content: bytes) -> None:
    pixels = decode_image(content, "here")
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS


def read_size(world: Path) -> Callable[[bytes], None]:
    def run(content: bytes) -> None:
        path = world / "image"
        path.write_bytes(content)
        header = read_header(path)
        assert all(type(side) is int and side > 0 for side in header.size_hw)
        assert header.size_hw[0] * header.size_hw[1] <= MAX_PIXELS
        assert 1 <= header.orientation <= 8

    return run


def images() -> list[bytes]:
    """A small image in every format, some with EXIF, transparency, sixteen bits or several frames."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    made = [
        *((rgb, {"format": kind, "exif": exif}) for kind in ("JPEG", "PNG", "TIFF", "WEBP")),
        *((rgb, {"format": kind}) for kind in ("BMP", "GIF", "PPM")),
        (rgb, {"format": "JPEG", "progressive": True}),
        (rgb.convert("CMYK"), {"format": "JPEG"}),
        (rgb.convert("P"), {"format": "PNG", "transparency": 3}),
        (rgb, {"format": "GIF", "save_all": True, "append_images": [rgb.rotate(90)]}),
        *((rgb, {"format": "TIFF", "compression": kind}) for kind in ("tiff_lzw", "jpeg", "tiff_deflate", "packbits")),
        (Image.fromarray(rng.integers(0, 65536, (9, 13), dtype=np.uint16)), {"format": "TIFF"}),
        (Image.fromarray(rng.integers(0, 65536, (9, 13), dtype=np.uint16)), {"format": "PNG"}),
        (rgb.convert("1"), {"format": "TIFF", "compression": "group4"}),
    ]
    files = []
    for image, words in made:
        file = BytesIO()
        image.save(file, **words)
        files.append(file.getvalue())
    return files


def yaml_damage(content: Any) -> st.SearchStrategy[bytes]:
    return damaged_values(content).map(as_yaml) | damaged_bytes(as_yaml(content))


def readers(world: Path, tar: bytes = b"") -> dict[str, Reader]:
    """Every reader of files that may come from a stranger; ``tar`` is what ``shard`` gives."""
    any_image = st.sampled_from(images()).flatmap(damaged_bytes)
    coco = read_split(world, "a.json", read_coco, split(annotations="a.json"))
    xml = read_split(world, "xml/0.xml", read_voc, split(annotations="xml"))
    stems = read_split(world, "list.txt", read_voc, split(annotations="xml", list="list.txt"))
    yolo = read_split(world, "yolo/0.txt", read_yolo, split(annotations="yolo", names=("a", "b", "c")))
    visdrone = read_split(world, "visdrone/0.txt", read_visdrone, split(annotations="visdrone"))
    cvat = read_split(world, "cvat.xml", read_cvat, split(annotations="cvat.xml"))
    label_studio = read_split(world, "ls.json", read_label_studio, split(annotations="ls.json"))
    labelme = read_split(world, "labelme/0.json", read_labelme, split(annotations="labelme"))
    via, via_csv = (read_split(world, name, read_via, split(annotations=name)) for name in ("via.json", "via.csv"))
    supervisely = read_split(world, "ds/ann/0.png.json", read_supervisely, split(annotations="ds"))
    shards = read_split(world, "train-0.tar", read_shards, split("train-*.tar"))
    return {
        "COCO, values": Reader(damaged_values(COCO).map(as_json), coco, 20_000),
        "COCO, bytes": Reader(damaged_bytes(as_json(COCO)), coco, 25_000),
        "VOC, XML": Reader(damaged_bytes(VOC.encode()), xml, 20_000),
        "VOC, list": Reader(damaged_bytes(b"0\n1\n") | st.binary(max_size=40), stems, 8_000),
        "YOLO, txt": Reader(damaged_bytes(YOLO), yolo, 20_000),
        "VisDrone, txt": Reader(damaged_bytes(VISDRONE), visdrone, 20_000),
        "CVAT, XML": Reader(damaged_bytes(CVAT.encode()), cvat, 20_000),
        "Label Studio, values": Reader(damaged_values(LABEL_STUDIO).map(as_json), label_studio, 20_000),
        "labelme, values": Reader(damaged_values(LABELME).map(as_json), labelme, 20_000),
        "VIA, values": Reader(damaged_values(VIA).map(as_json), via, 20_000),
        "VIA, CSV": Reader(damaged_bytes(VIA_CSV), via_csv, 10_000),
        "Supervisely, values": Reader(damaged_values(SUPERVISELY).map(as_json), supervisely, 20_000),
        "shards, tar": Reader(damaged_bytes(tar), shards, 10_000),
        "data": Reader(yaml_damage(DATA), read_config(world, load_data_config), 8_000),
        "recipe": Reader(yaml_damage(RECIPE), read_config(world, lambda p: load_detection_recipe(p, {})), 1_500),
        "class recipe": Reader(
            yaml_damage(CLASS_RECIPE), read_config(world, lambda p: load_classification_recipe(p, {})), 1_500
        ),
        "run": Reader(yaml_damage(RUN), read_config(world, load_run_config), 5_000),
        "sweep": Reader(yaml_damage(SWEEP), read_config(world, load_sweep_config), 8_000),
        "model": Reader(yaml_damage(yaml.safe_load(TINY)), read_model(world), 6_000),
        "image, header": Reader(any_image, read_size(world), 10_000),
        "image, pixels": Reader(any_image, read_pixels, 8_000),
    }


NAMES = list(readers(Path()))


def fuzz(reader: Reader, **words: Any) -> None:
    """Feed a reader with damaged files.

    Args:
        reader: which.
        words: of hypothesis' settings.
    """

    @settings(parent=settings.get_profile("suite"), suppress_health_check=list(HealthCheck), phases=PHASES, **words)
    @given(reader.damage)
    def one(content: bytes) -> None:
        note(f"the file: {content!r:.3000}")
        with within(MAX_SECONDS):
            check_message(message_of(reader.read, content))

    one()


@pytest.mark.parametrize("name", NAMES)
def test_some_damaged_files(world: Path, name: str) -> None:
    fuzz(readers(world, shard(world))[name], max_examples=FAST_CASES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_many_damaged_files(world: Path, name: str) -> None:
    reader = readers(world, shard(world))[name]
    before, start = peak_mb(), time.perf_counter()
    fuzz(reader, max_examples=reader.cases, derandomize=False)
    grown = peak_mb() - before
    print(f"| {name} | {reader.cases:,} | {time.perf_counter() - start:.0f} | {grown:.0f} |")
    assert grown < MAX_GROWTH_MB


def test_the_slow_run_is_long_enough() -> None:
    assert sum(reader.cases for reader in readers(Path()).values()) >= 100_000


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
