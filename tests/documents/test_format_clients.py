"""The clients of other formats: short, with their runtime alone, and with the boxes of ``Detector``."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from detect.data.images import write_image
from detect.exporting.comparison_inputs import comparison_images
from detect.exporting.converters import CONVERTERS, export_converted
from detect.exporting.options import ExportOptions
from detect.inference.classifier import Classifier
from detect.inference.detector import Detector
from detect.inference.runtimes.formats import FORMATS
from tests.documents.pages import ROOT
from tests.exporting import exports
from tests.exporting.test_runner import WITHOUT, unmatched

CLIENTS = sorted((ROOT / "docs" / "clients").glob("*.py"))
STANDARD = {"__future__", "argparse", "json", "pathlib", "sys", "typing", "zipfile"}
NOTES = ("INFO: Created TensorFlow Lite",)
"""Lines of runtimes on standard error."""
RUNTIMES = {"detect_openvino": "openvino", "detect_ncnn": "ncnn", "detect_litert": "ai_edge_litert"}


def trees() -> dict[str, ast.Module]:
    return {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in CLIENTS}


def parts(tree: ast.Module) -> dict[str, str]:
    """Source of each function and method of ``Model`` by its name, but for what depends on the kind of file."""
    bodies = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Model"]
    nodes = [node for part in (*bodies, tree) for node in part.body if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.unparse(node) for node in nodes if node.name != "decoded"}


def test_short_and_with_their_runtime_alone() -> None:
    assert [path.stem for path in CLIENTS] == sorted(RUNTIMES)
    for path in CLIENTS:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 150
    for name, tree in trees().items():
        imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        modules = {
            alias.name if isinstance(node, ast.Import) else str(node.module).split(".")[0]
            for node in imports
            for alias in node.names
        }
        assert modules - STANDARD == {"cv2", "numpy", RUNTIMES[name]}


def test_what_they_have_in_common_is_the_same() -> None:
    first, *others = map(parts, trees().values())
    assert {"suppress", "padded", "crop", "main"} <= set(first)
    for other in others:
        assert {name: other[name] for name in first if name in other} == {
            name: first[name] for name in first if name in other
        }


def run_client(folder: Path, kind: str, path: Path, images: list[str]) -> list[str]:
    """Printed lines; the process cannot import PyTorch or the toolkit."""
    client = ROOT / "docs" / "clients" / f"detect_{kind}.py"
    command = [sys.executable, "-I", "-c", WITHOUT, str(client), str(path), *images]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if not line.startswith(NOTES)] == []
    return done.stdout.splitlines()


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """Ten files of eight shapes."""
    pictures = comparison_images()
    pictures += [np.ascontiguousarray(picture[::-1]) for picture in pictures[4:6]]
    for number, picture in enumerate(pictures):
        write_image(tmp_path / f"{number}.png", picture)
    return [f"{number}.png" for number in range(len(pictures))]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVERTERS)
def test_boxes_and_classes(name: str, tmp_path: Path, images: list[str]) -> None:
    exports.require_converter(name)
    detector, classifier = (tmp_path / f"{kind}{FORMATS[name].suffix}" for kind in ("detector", "classifier"))
    dynamic = CONVERTERS[name].dynamic
    with exports.exporter_once():
        export_converted(exports.detector(), detector, ExportOptions(format=FORMATS[name], dynamic=dynamic))
        export_converted(exports.classifier(), classifier, ExportOptions(format=FORMATS[name], dynamic=dynamic))
    found: dict[str, list[list[float]]] = {image: [] for image in images}
    names = exports.NAMES
    for line in run_client(tmp_path, name, detector, images):
        image, rest = line.split(" ", 1)
        label, score, *box = rest.rsplit(" ", 5)
        found[image].append([float(score), names.index(label), *map(float, box)])
    opened, total = Detector(detector), 0
    for image in images:
        expected = opened.predict(tmp_path / image)
        rows = np.column_stack([expected.scores, expected.labels, expected.boxes_xyxy_px])
        assert unmatched(np.array(found[image]), rows) == unmatched(rows, np.array(found[image])) == 0
        total += len(expected)
    assert total > 100
    for line, image in zip(run_client(tmp_path, name, classifier, images), images, strict=True):
        best, score = Classifier(classifier).predict(tmp_path / image).top(1)[0]
        assert line.startswith(f"{image} {best} {score:.3f} ")
