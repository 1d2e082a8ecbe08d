"""tools/evaluate.py and tools/predict.py as a user runs them, in this process."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detect.data.images import write_image
from detect.models.build import build_model
from detect.models.checkpoint import save_checkpoint
from detect.runtime.logs import LOGGER

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def run_here(monkeypatch, capsys, tmp_path):
    """Run a tool as ``__main__`` of this process, in ``tmp_path``. Gives its exit code, standard output and error."""
    handlers, level, propagate = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    monkeypatch.chdir(tmp_path)

    def run_it(tool, *arguments):
        monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
        code = 0
        try:
            runpy.run_path(str(TOOLS / tool), run_name="__main__")
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    yield run_it
    LOGGER.handlers[:], LOGGER.level, LOGGER.propagate = handlers, level, propagate


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an untrained checkpoint and a COCO data set of four images (ids with gaps, one without objects)."""
    place = tmp_path_factory.mktemp("tools")
    torch.manual_seed(0)
    save_checkpoint(
        place / "model.pt",
        build_model("yolov5n+width=0.1", num_classes=2),
        names=("cat", "dog"),
        category_ids=(3, 9),
        image_size=64,
        metrics={},
        provenance={},
    )
    save_checkpoint(
        place / "three.pt",
        build_model("yolov5n+width=0.1", num_classes=3),
        names=("emu", "fox", "gnu"),
        category_ids=(1, 2, 3),
        image_size=64,
        metrics={},
        provenance={},
    )
    rng = np.random.default_rng(0)
    for number in range(4):
        write_image(place / f"images/{number}.jpg", rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    images = [{"id": 7 + 5 * n, "file_name": f"{n}.jpg", "height": 60, "width": 80} for n in range(4)]
    annotations = [
        {
            "id": n + 1,
            "image_id": 7 + 5 * n,
            "category_id": (3, 9, 3)[n],
            "bbox": [5, 5, 40, 40],
            "area": 1600,
            "iscrowd": 0,
        }
        for n in range(3)
    ]
    categories = [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}]
    labelled = {"images": images, "annotations": annotations, "categories": categories}
    (place / "val.json").write_text(json.dumps(labelled))
    (place / "dev.json").write_text(json.dumps({"images": images, "categories": categories}))
    (place / "data.yaml").write_text(
        "name: two\nroot: .\nformat: coco\nsplits:\n"
        "  val: {images: images, annotations: val.json}\n  dev: {images: images, annotations: dev.json}\n"
    )
    return place


def test_evaluate(place, tmp_path, run_here):
    code, output, error = run_here(
        "evaluate.py",
        *("--weights", place / "model.pt", "--data", place / "data.yaml", "--workers", 0),
        *("--metrics-json", tmp_path / "m.json", "--results-json", tmp_path / "r.json", "--out", tmp_path / "pictures"),
        *("--report", tmp_path / "report"),
    )
    assert code == 0, error
    assert output.startswith("COCO metrics\n  AP  ")
    assert "ms per image: preprocess" in output
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert set(metrics["per_class"]) == {"cat", "dog"}
    assert metrics["images"] == 4
    assert metrics["split"] == "val"
    assert metrics["image_size"] == 64
    results = json.loads((tmp_path / "r.json").read_text())
    assert {result["image_id"] for result in results} <= {7, 12, 17, 22}
    assert {result["category_id"] for result in results} <= {3, 9}
    assert cv2.imread(str(tmp_path / "pictures" / "confusion_matrix.png")) is not None
    report = (tmp_path / "report" / "index.html").read_text()
    assert f"<td>AP</td><td>{metrics['AP']:.3f}</td>" in report
    assert ">multiply-adds at 64 x 64 px</td>" in report


def test_evaluate_without_annotations(place, tmp_path, run_here):
    options = ("--weights", place / "model.pt", "--data", place / "data.yaml", "--workers", 0, "--split", "dev")
    code, _, error = run_here("evaluate.py", *options)
    assert code == 2
    assert error.startswith("error: the split has no annotations")
    code, printed, _ = run_here("evaluate.py", *options, "--results-json", "r.json")
    assert code == 0
    assert "COCO metrics" not in printed
    assert (tmp_path / "r.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--split", "tset"), "there is no split 'tset'"),
        (("--weights", "none.pt"), "none.pt: cannot be read"),
        (("--weights", "hostile.pt"), "reading it could run code, so it is refused"),
        (("--weights", "three.pt"), "none in common; the checkpoint has 'emu', 'fox', 'gnu', the data"),
        (("--image-size", "100"), "image size: must be a multiple of 32, found 100"),
        (("--image-size", "0"), "image size: must be a multiple of 32, found 0"),
        (("--batch-size", "0"), "batch size: must be at least 1"),
        (("--metrics-json", "."), "--metrics-json .: is a folder"),
        (("--device", "gpu"), "--device gpu: is not a device"),
    ],
)
def test_evaluate_refuses_in_one_line(place, tmp_path, run_here, options, message):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"format": "detect-checkpoint", "names": Hostile()}, tmp_path / "hostile.pt")
    shutil.copy(place / "three.pt", tmp_path)
    base = ("--weights", place / "model.pt", "--data", place / "data.yaml", "--workers", 0)
    code, _, error = run_here("evaluate.py", *base, *options)
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "ran").exists()


def test_evaluate_of_damaged_images(place, tmp_path, run_here):
    data = shutil.copytree(place, tmp_path / "data")
    # A PNG (its name does not matter) with header and end, whose pixels cannot be decoded.
    write_image(tmp_path / "whole.png", np.zeros((60, 80, 3), np.uint8))
    whole = (tmp_path / "whole.png").read_bytes()
    start = whole.index(b"IDAT") + 4
    (data / "images" / "1.jpg").write_bytes(whole[:start] + b"\xff" * 8 + whole[start + 8 :])
    options = ("--weights", data / "model.pt", "--data", data / "data.yaml", "--workers", 0)
    code, _, error = run_here("evaluate.py", *options)
    assert code == 0
    assert "its objects count as missed" in error
    code, _, error = run_here("evaluate.py", *options, "--strict")
    assert code == 2
    assert "1.jpg" in error.splitlines()[-1]
    assert "--strict" in error.splitlines()[-1]


def test_predict(place, tmp_path, run_here):
    code, output, error = run_here(
        "predict.py",
        *(
            "--weights",
            place / "model.pt",
            "--source",
            place / "images",
            "--out",
            tmp_path,
            "--conf",
            0,
            "--max-det",
            2,
        ),
        *("--save-json", "--save-txt", "--save-crops", "--classes", "cat", "1", "--batch-size", 3),
        "--class-agnostic",
    )
    assert code == 0, error
    lines = output.splitlines()
    assert lines[0].startswith(f"{place / 'images' / '0.jpg'}: ")
    assert len(lines) == 8
    assert lines[-4] == f"drawn images: {tmp_path}"
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 8
    assert len((tmp_path / "labels" / "2.txt").read_text().splitlines()) == 2
    assert len(list((tmp_path / "crops").rglob("*.jpg"))) == 8


def test_predict_skips_damaged_images(place, tmp_path, run_here):
    write_image(tmp_path / "in" / "good.png", np.zeros((30, 30, 3), np.uint8))
    (tmp_path / "in" / "bad.png").write_bytes(b"x")
    code, printed, error = run_here("predict.py", "--weights", place / "model.pt", "--source", "in", "--out", "out")
    assert code == 0
    assert printed.startswith("in/good.png: ")
    assert "bad.png" in error
    assert "1 of 2 images could not be read" in error
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["good.jpg"]


def test_predict_into_its_own_source(place, tmp_path, run_here):
    write_image(tmp_path / "photos" / "a.jpg", np.zeros((30, 30, 3), np.uint8))
    before = (tmp_path / "photos" / "a.jpg").read_bytes()
    code, _, error = run_here("predict.py", "--weights", place / "model.pt", "--source", "photos", "--out", "photos")
    assert code == 2
    assert error == "error: --out photos: photos/a.jpg would replace an image of --source; choose another folder\n"
    assert [path.read_bytes() for path in (tmp_path / "photos").iterdir()] == [before]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--source", "none.jpg"), "source none.jpg: no such file or folder"),
        (("--source", "bad.jpg"), "bad.jpg: is not an image"),
        (("--conf", "7"), "score threshold: must be from 0 to 1, found 7.0"),
        (("--max-det", "0"), "must be at least 1, found 0"),
        (("--classes", "dgo"), "unknown class 'dgo'; did you mean 'dog'?"),
        (("--batch-size", "0"), "batch size: must be at least 1, found 0"),
        (("--image-size", "-32"), "image size: must be a multiple of 32"),
        (("--weights", "bad.jpg"), "error: bad.jpg: "),
    ],
)
def test_predict_refuses_in_one_line(place, tmp_path, run_here, options, message):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    base = ("--weights", place / "model.pt", "--source", place / "images" / "0.jpg", "--out", tmp_path / "out")
    code, _, error = run_here("predict.py", *base, *options)
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()
