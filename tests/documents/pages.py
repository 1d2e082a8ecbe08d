"""The documents of the repository, the blocks and commands in them, and a folder in which they can be run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from detect.cli.main import COMMANDS
from detect.curation.convert import Conversion, convert
from detect.data.recognition import open_data
from detect.data.shapes import generate_shapes
from detect.models.catalog import shipped_weights
from tests.inference.clips import write_clip

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(path for path in (ROOT / "docs").rglob("*.md") if "generated" not in path.parts), ROOT / "README.md"]
"""The pages of the site that are written by hand, and the README: every block in them is tested."""
DOCUMENT_PATTERNS = ("*.md", "*/README.md", "weights/*.md", "configs/*/*.yaml")
DOCUMENTS = sorted({*PAGES, *(path for pattern in DOCUMENT_PATTERNS for path in ROOT.glob(pattern))})

_BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^>]*) -->\n)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_DETECT = rf"detect (?:{'|'.join(COMMANDS)})\b[^`#|;&]*"


class Block(NamedTuple):
    """A fenced block.

    Args:
        language: behind the fence.
        text: of the block.
        note: of a comment in front of it, ``KIND: WORDS``; empty for none. ``file`` is the name under which a YAML
            block lies in the folder of its page's commands. A Python block with ``small: epochs`` trains, in the
            slow suite and for one epoch; one with ``needs: NAME`` runs in the slow suite, after its page's commands,
            where there is a file or a package of that name.
    """

    language: str
    text: str
    note: str

    @property
    def needs(self) -> str:
        return self.note.removeprefix("needs: ") if self.note.startswith("needs: ") else ""

    @property
    def file(self) -> str:
        return self.note.removeprefix("file: ") if self.note.startswith("file: ") else ""


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a document, in order."""
    return [Block(found["language"], found["text"], found["note"] or "") for found in _BLOCK.finditer(text)]


def shell_lines(block: Block) -> list[list[str]]:
    """The words of each line of a ``bash`` block."""
    lines = re.sub(r"\\\n", " ", block.text).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each ``detect``, ``python tools/x.py`` or ``make`` that a document tells the reader to type."""
    for line in re.sub(r"\\\n[#\s]*", " ", text).splitlines():
        for found in re.finditer(r"(?:python3?|\.venv/bin/python) ((?:tools|benchmarks)/\w+\.py[^`#|;&]*)", line):
            yield _words(found[1])
        for found in re.finditer(rf"(?:^|[`$] ?|-m )({_DETECT})", line):
            yield _words(found[1])
        if found := re.search(r"`make ([a-z][a-z-]*)|^[#$\s]*make ([a-z][a-z-]*)(?:\s+[A-Z_]+=\S+)*\s*(?:#.*)?$", line):
            yield ["make", found[1] or found[2]]


def _words(command: str) -> list[str]:
    return [word for word in shlex.split(command) if word != "..."]


def identity(path: Path) -> str:
    """The name of a document in a test's."""
    return path.relative_to(ROOT).as_posix()


def make_workshop(folder: Path) -> None:
    """Fill a folder with what the pages take for granted: ``my-data``, ``photo.jpg``, ``runs/mine/best.pt``, ..."""
    generate_shapes(folder / "my-data", 12, 4, 35, image_size=64)
    shutil.copytree(folder / "my-data", folder / "my-coco")
    convert(open_data(str(folder / "my-data")), Conversion("yolo", folder / "my-yolo"))
    (folder / "my-yolo" / "yolo.yaml").replace(folder / "my-yolo" / "data.yaml")  # that of YOLOv5
    images = sorted((folder / "my-data" / "images" / "test").glob("*.jpg"))
    for name in ("photo.jpg", "photos/a.jpg", "more/b.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / name), cv2.imread(str(images[0])))
    cv2.imwrite(str(folder / "large.png"), np.full((300, 400, 3), 90, np.uint8))
    (folder / "runs" / "mine").mkdir(parents=True)
    shutil.copy(shipped_weights()["yolov5n-spd-shapes"], folder / "runs" / "mine" / "best.pt")
    write_clip(folder / "drive.mp4")
    write_clip(folder / "clips" / "a.mov")
    (folder / "list.txt").write_text("photo.jpg\n", encoding="utf-8")
    for split, kind, number in np.ndindex(2, 2, 4):  # for classification
        path = folder / ("train", "val")[split] / ("ok", "scratch")[kind] / f"{split}{kind}{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((64, 64, 3), 60 * kind + 20 * number, np.uint8))
    for split in ("train", "val"):
        shutil.copytree(folder / split, folder / "my-classes" / split)
    _make_labelme(folder / "labelme-data")
    _make_via(folder / "via-data")
    _make_supervisely(folder / "supervisely-data")


def _make_labelme(folder: Path) -> None:
    folder.mkdir()
    shapes = [
        {"label": "ant", "shape_type": "rectangle", "points": [[30, 40], [10, 20]]},
        {"label": "bee", "shape_type": "circle", "points": [[50, 50], [53, 54]]},
        {"label": "ant", "shape_type": "polygon", "points": [[1, 2], [9, 4], [5, 8]]},
    ]
    for name in ("a", "b"):
        cv2.imwrite(str(folder / f"{name}.jpg"), np.full((80, 100, 3), ord(name), np.uint8))
        content = {"imagePath": f"{name}.jpg", "imageHeight": 80, "imageWidth": 100, "shapes": shapes}
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def _make_via(folder: Path) -> None:
    folder.mkdir()
    regions = [
        {"name": "rect", "x": 10, "y": 20, "width": 20, "height": 20},
        {"name": "circle", "cx": 50, "cy": 50, "r": 5},
        {"name": "polygon", "all_points_x": [1, 9, 5], "all_points_y": [2, 4, 8]},
    ]
    named = zip(regions, ("ant", "bee", "ant"), strict=True)
    plain = [{"shape_attributes": region, "region_attributes": {"class": name}} for region, name in named]
    entries = {name: {"filename": name, "size": -1, "regions": plain} for name in ("a.jpg", "b.jpg")}
    for name in entries:
        cv2.imwrite(str(folder / name), np.full((80, 100, 3), ord(name[0]), np.uint8))
    (folder / "via.json").write_text(json.dumps(entries), encoding="utf-8")


def _make_supervisely(folder: Path) -> None:
    objects = [
        {
            "classTitle": name,
            "geometryType": "rectangle",
            "points": {"exterior": [[x, 20], [x + 20, 40]], "interior": []},
        }
        for name, x in (("ant", 10), ("bee", 50))
    ]
    (folder / "ds0" / "ann").mkdir(parents=True)
    (folder / "ds0" / "img").mkdir()
    (folder / "meta.json").write_text(json.dumps({"classes": [], "tags": []}), encoding="utf-8")
    for name in ("a", "b"):
        cv2.imwrite(str(folder / "ds0" / "img" / f"{name}.jpg"), np.full((80, 100, 3), ord(name), np.uint8))
        content = {"size": {"height": 80, "width": 100}, "objects": objects}
        (folder / "ds0" / "ann" / f"{name}.jpg.json").write_text(json.dumps(content), encoding="utf-8")
