"""tools/evaluate.py and tools/predict.py with a classifier, from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detect.data.images import write_image
from detect.models.build import build_classifier, build_model
from detect.models.checkpoint import load_checkpoint, rewrite_checkpoint, save_checkpoint
from tests.tools.running import run_here

NAMES = ("blue", "green", "red")
DATA = "name: colours\nroot: colours\nformat: folders\nsplits:\n  train: {images: val}\n  val: {images: val}\n"
EVALUATE = ("evaluate.py", "--weights", "model.pt", "--data", "data.yaml", "--workers", 0, "--device", "cpu")
PREDICT = ("predict.py", "--weights", "model.pt", "--source", "colours", "--device", "cpu", "--out", "out")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained classifier, a detector and three folders of three images."""
    world = tmp_path_factory.mktemp("classes")
    torch.manual_seed(0)
    facts = {"names": NAMES, "category_ids": (0, 1, 2), "image_size": 32, "metrics": {}, "provenance": {}}
    save_checkpoint(world / "model.pt", build_classifier("resnet20+width=0.25", 3), **facts)
    save_checkpoint(world / "detector.pt", build_model("yolov5n+width=0.1", 3), **facts)
    rng = np.random.default_rng(0)
    for channel, name in enumerate(reversed(NAMES)):
        for number in range(3):
            image = rng.integers(0, 100, (40, 30, 3), dtype=np.uint8)
            image[..., channel] += 150
            write_image(world / f"colours/val/{name}/{number}.png", image)
    (world / "data.yaml").write_text(DATA)
    return world


def test_evaluate_measures_and_draws(world: Path, tmp_path: Path) -> None:
    files = ("--metrics-json", tmp_path / "m.json", "--results-json", tmp_path / "r.json", "--out", tmp_path / "out")
    ended = run_here(world, *EVALUATE, *files)
    assert ended.code == 0, ended
    assert ended.output.startswith("Classification metrics\n  top1 ")
    assert "ms per image: preprocess " in ended.output
    assert f"pictures: {tmp_path / 'out'}" in ended.output
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert (metrics["images"], metrics["top5"], metrics["image_size"], metrics["center_crop"]) == (9, 1, 32, 1)
    assert metrics["weights"] == "model.pt"
    results = json.loads((tmp_path / "r.json").read_text())
    assert len(results) == 9
    assert metrics["top1"] == sum(one["top5"][0]["category"] == one["category"] for one in results) / 9
    names = {"confusion_matrix.png", "confused_pairs.jpg", "class_activation.jpg"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_several_sizes_and_ten_crops(world: Path, tmp_path: Path) -> None:
    """A line, a row of the table and a record for each size, the smallest first; a picture."""
    out, metrics = tmp_path / "out", tmp_path / "m.json"
    ended = run_here(world, *EVALUATE, "--image-size", 32, 16, "--crops", 10, "--out", out, "--metrics-json", metrics)
    assert ended.code == 0, ended
    lines = ended.output.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["16", "32"]
    records = json.loads(metrics.read_text())["sizes"]
    assert [(record["image_size"], record["crops"]) for record in records] == [(16, 10), (32, 10)]
    rows = [line.split(",") for line in (out / "sizes.csv").read_text().splitlines()]
    assert rows == [
        ["image_size", "top1", "top5"],
        *([str(record["image_size"]), str(record["top1"]), str(record["top5"])] for record in records),
    ]
    assert cv2.imread(str(out / "sizes.png")) is not None


def test_several_sizes_beside_a_baseline(world: Path, tmp_path: Path) -> None:
    """The other classifier's numbers are those of an evaluation of its own."""
    out, metrics = tmp_path / "out", tmp_path / "m.json"
    torch.manual_seed(1)
    facts = {"names": NAMES, "category_ids": (0, 1, 2), "image_size": 32, "metrics": {}, "provenance": {}}
    save_checkpoint(tmp_path / "other.pt", build_classifier("resnet20+width=0.25", 3), **facts)
    sizes = ("--image-size", 16, 32)
    other = ("--weights", tmp_path / "other.pt")
    ended = run_here(
        *(world, *EVALUATE, *sizes, "--baseline", tmp_path / "other.pt", "--out", out, "--metrics-json", metrics)
    )
    assert ended.code == 0, ended
    records = json.loads(metrics.read_text())["sizes"]
    assert run_here(world, *EVALUATE, *sizes, *other, "--metrics-json", metrics).code == 0
    alone = json.loads(metrics.read_text())["sizes"]
    assert [record["baseline"]["loss"] for record in records] == [record["loss"] for record in alone]
    assert all(record["loss"] != record["baseline"]["loss"] for record in records)
    header, *rows = [line.split(",") for line in (out / "sizes.csv").read_text().splitlines()]
    assert header == ["image_size", "top1", "top5", "baseline top1", "baseline top5"]
    assert [row[3] for row in rows] == [str(record["top1"]) for record in alone]
    line = ended.output.splitlines()[0]
    assert line.endswith(f"  baseline: top1 {alone[0]['top1']:.3f}  top5 {alone[0]['top5']:.3f}")


def test_sizes_before_the_crop(world: Path, tmp_path: Path) -> None:
    """At 32 px the crop is the whole short side, as in an evaluation without the option."""
    metrics = tmp_path / "m.json"
    ended = run_here(world, *EVALUATE, "--pre-crop", 64, 32, 48, "--metrics-json", metrics)
    assert ended.code == 0, ended
    lines = ended.output.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["32", "48", "64"]
    assert lines[3].startswith("mean cosine of the probabilities of 3 pairs of sizes: ")
    found = json.loads(metrics.read_text())
    assert run_here(world, *EVALUATE, "--metrics-json", metrics).code == 0
    assert found["pre_crops"]["32"]["loss"] == json.loads(metrics.read_text())["loss"]
    assert found["pre_crops"]["32"]["loss"] != found["pre_crops"]["64"]["loss"]
    assert 0 < found["mean_cosine"] < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--pre-crop", 32), "--pre-crop: must be at least two different sizes, found 32"),
        (("--pre-crop", 48, 48), "--pre-crop: must be at least two different sizes, found 48 48"),
        (("--pre-crop", 16, 64), "--pre-crop: must be at least the crop of 32 px, found 16"),
        (("--pre-crop", 32, 64, "--crops", 10), "--crops: does not go with --pre-crop"),
        (("--pre-crop", 32, 64, "--image-size", 16, 32), "--pre-crop: goes with one --image-size, found 2"),
        (("--weights", "detector.pt", "--pre-crop", 32, 64), "detector.pt: is a detector; here a classifier is needed"),
        (("--image-size", 16, 16), "--image-size: has a size twice: 16 16"),
        (("--baseline", "model.pt"), "--baseline: belongs to --instances or to several --image-size"),
        (("--pre-crop", 32, 64, "--baseline", "model.pt"), "--baseline: does not go with --pre-crop"),
        (("--exits", "--baseline", "model.pt"), "--baseline: does not go with --exits"),
        (("--image-size", 32, 64, "--baseline", "detector.pt"), "the model is a detector"),
        (("--image-size", 16, 32, "--results-json", "r.json"), "--results-json: is for one --image-size, found 2"),
        (("--weights", "detector.pt", "--crops", 10), "--crops: is for classifiers; detector.pt is a detector"),
    ],
)
def test_what_excludes_sizes_and_crops(world: Path, options: tuple, message: str) -> None:
    assert message in run_here(world, *EVALUATE, *options).complaint


def test_what_is_for_detectors_is_refused(world: Path) -> None:
    complaint = run_here(world, *EVALUATE, "--coco-engine", "hotcoco").complaint
    assert complaint == "error: --coco-engine: is for detectors; model.pt is a classifier"
    complaint = run_here(world, *EVALUATE, "--max-det", 500).complaint
    assert complaint == "error: --max-det: is for detectors; model.pt is a classifier"
    complaint = run_here(world, *EVALUATE, "--tile", 64).complaint
    assert complaint == "error: --tile: is for detectors; model.pt is a classifier"
    complaint = run_here(world, *EVALUATE, "--areas", "boxes").complaint
    assert complaint == "error: --areas: is for detectors; model.pt is a classifier"
    complaint = run_here(world, *EVALUATE, "--report", "report").complaint
    assert complaint == "error: --report: is for detectors; model.pt is a classifier"


def test_predict_tells_draws_and_writes(world: Path, tmp_path: Path) -> None:
    ended = run_here(world, *PREDICT, "--out", tmp_path, "--save-json", "--batch-size", 2)
    assert ended.code == 0, ended
    lines = ended.output.splitlines()
    assert len(lines) == 11
    entries = json.loads((tmp_path / "predictions.json").read_text())
    assert len(entries) == 9
    best = ", ".join(f"{one['category']} {one['score']:.2f}" for one in entries[0]["top5"])
    assert lines[0] == f"colours/val/blue/0.png: {best}"
    drawn = cv2.imread(str(tmp_path / "blue/0.jpg"))
    assert drawn.shape == (320 + 3 * 21 + 14, 320, 3)  # 30 x 40 px enlarged to 240 x 320 px, three lines


def test_options_of_detectors_are_refused(world: Path) -> None:
    complaint = run_here(world, *PREDICT, "--iou", 0.5, "--classes", "red", "--save-crops").complaint
    assert complaint == "error: --iou, --classes, --save-crops: of detectors only; model.pt is a classifier"
    assert not (world / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--conf", 0), ("--max-det", 1), ("--class-agnostic", None), ("--save-txt", None)],
)
def test_each_option_of_detectors_is_refused(world: Path, option: str, value: int | None) -> None:
    words = (option,) if value is None else (option, value)
    assert f"{option}: of detectors only" in run_here(world, *PREDICT, *words).complaint


def test_images_that_cannot_be_read_are_counted(world: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    ended = run_here(world, *PREDICT, "--out", tmp_path / "out", "--source", "colours", tmp_path / "bad.png")
    assert ended.code == 0
    assert "1 of 10 images could not be read and were skipped" in ended.error
    complaint = run_here(world, *PREDICT, "--source", tmp_path / "bad.png").complaint
    assert "bad.png: is not an image" in complaint


def test_data_of_the_other_task(world: Path) -> None:
    for weights, data in (("detector.pt", "data.yaml"), ("model.pt", "coco.yaml")):
        (world / "coco.yaml").write_text(
            DATA.replace("format: folders\n", "").replace("val}", "val, annotations: a.json}")
        )
        assert "format" in run_here(world, *EVALUATE, "--weights", weights, "--data", data).complaint


COMPARE = ("compare_costs.py", "--data", "data.yaml", "--workers", 0, "--device", "cpu", "--out", "compared")


def test_compare(world: Path, tmp_path: Path) -> None:
    """The second model turns the first one's logits round, so that they never agree."""
    checkpoint = load_checkpoint(world / "model.pt")
    with torch.no_grad():
        checkpoint.classifier.head.linear.weight.neg_()
        checkpoint.classifier.head.linear.bias.neg_()
    rewrite_checkpoint(tmp_path / "turned.pt", checkpoint)
    weights = ("--weights", "model.pt", tmp_path / "turned.pt")
    options = ("--out", tmp_path / "out", "--count", 4, "--activations", 32, 16)
    ended = run_here(world, *COMPARE, *weights, *options)
    assert ended.code == 0, ended
    first, second, line, listed, sheet, maps = ended.output.splitlines()
    assert first.startswith("A: model.pt, top-1 0.")
    assert second.startswith(f"B: {tmp_path / 'turned.pt'}, top-1 ")
    content = json.loads((tmp_path / "out/compare.json").read_text())
    totals = content["totals"]
    assert totals["images"] == 9
    assert totals["right_by_both"] == 0
    assert line.startswith("of 9 images both have 0 right, A alone ")
    assert len(content["differences"]) == totals["right_by_a_alone"] + totals["right_by_b_alone"] > 0
    assert listed.startswith(f"list of {len(content['differences'])} differences in ")
    assert (
        sheet == f"sheet of the {min(len(content['differences']), 4)} images that differ most: {tmp_path}/out/sheet.jpg"
    )
    assert maps == f"class activation maps of them at 32, 16 px: {tmp_path}/out/activations.jpg"
    assert (tmp_path / "out/activations.jpg").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--weights", "model.pt"), "--weights: --data compares two models, found 1"),
        (("--weights", "model.pt", "model.pt", "--costs", 1), "--costs: belongs to --source"),
        (("--weights", "model.pt", "model.pt", "--conf", 0.5), "--conf: of detectors only; model.pt is a classifier"),
        (("--weights", "model.pt", "detector.pt"), "model.pt is a classifier and detector.pt a detector; compare two"),
        (("--weights", "model.pt", "model.pt", "--source", "x"), "--source: not allowed with argument --data"),
        (("--weights", "none.pt", "model.pt"), "none.pt: cannot be read"),
        (("--weights", "model.pt", "model.pt", "--activations", 30), "--activations: must be multiples of 4, found 30"),
        (("--weights", "model.pt", "model.pt", "--activations", 4), "has a single cell at 4 px; take a larger size"),
        (
            ("--weights", "detector.pt", "detector.pt", "--activations", 32),
            "--activations: of classifiers only; detector.pt is a detector",
        ),
    ],
)
def test_what_cannot_be_compared(world: Path, options: tuple, message: str) -> None:
    assert message in run_here(world, *COMPARE, *options).complaint
    assert not (world / "compared").exists()


def test_options_of_a_split_are_refused_for_costs(world: Path) -> None:
    words = ("compare_costs.py", "--source", "colours", "--weights")
    assert "--count: belongs to --data" in run_here(world, *words, "model.pt", "--count", 3).complaint
    assert "found 2 files" in run_here(world, *words, "model.pt", "model.pt").complaint
