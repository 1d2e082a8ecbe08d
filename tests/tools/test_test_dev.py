"""COCO's test-dev: images without annotations in, the file for the evaluation server out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO

from detect import Detector
from detect.models.build import build_model
from detect.models.checkpoint import save_checkpoint
from tests.tools.running import run_here

RESULTS = "detections_test-dev2017_detect_results.json"
NUM_IMAGES = 3


@pytest.fixture(scope="module")
def world(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some images of COCO laid out as its test-dev, and a network that has the 80 classes in another order."""
    folder = tmp_path_factory.mktemp("test-dev")
    content = json.loads((real_data / "tiny_coco/instances_val2017.json").read_text())
    images, categories = content["images"][:NUM_IMAGES], content["categories"]
    (folder / "annotations").mkdir()
    (folder / "test2017").mkdir()
    for image in images:
        shutil.copy(real_data / "tiny_coco/val2017" / image["file_name"], folder / "test2017")
    published = {"info": content["info"], "licenses": content["licenses"], "images": images, "categories": categories}
    (folder / "annotations/image_info_test-dev2017.json").write_text(json.dumps(published))

    torch.manual_seed(0)
    model = build_model("yolov5n", num_classes=80)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".detect." in name:
                parameter += 2 * torch.randn_like(parameter)  # an untrained head is sure of nothing
    ids, names = zip(*sorted(((one["id"], one["name"]) for one in categories), reverse=True), strict=True)
    details = {"image_size": 64, "metrics": {}, "provenance": {}}
    save_checkpoint(folder / "model.pt", model, names=names, category_ids=ids, **details)
    return folder


@pytest.mark.parametrize("tiles", [(), pytest.param(("--tile", 320), marks=pytest.mark.slow)])
def test_the_file_for_the_evaluation_server(world: Path, tmp_path: Path, tiles: tuple) -> None:
    data = ("--data", "coco", "--data-root", world, "--split", "test-dev")
    words = ("--weights", world / "model.pt", "--workers", 0, "--device", "cpu", "--results-json", RESULTS)
    ended = run_here(tmp_path, "evaluate.py", *data, *words, *tiles)
    assert ended.code == 0, ended.error
    assert ended.output.splitlines()[-1] == f"detections: {RESULTS}"
    assert [path.name for path in tmp_path.iterdir()] == [RESULTS]

    truth = COCO(str(world / "annotations/image_info_test-dev2017.json"))
    results = json.loads((tmp_path / RESULTS).read_text())
    assert {result["image_id"] for result in results} == set(truth.getImgIds())
    # 81 to 90 are no indices of 80 classes.
    assert max(result["category_id"] for result in results) > 80
    for result in results:
        assert list(result) == ["image_id", "category_id", "bbox", "score"]
        assert type(result["image_id"]) is type(result["category_id"]) is int
        assert [type(value) for value in [*result["bbox"], result["score"]]] == [float] * 5
        left, top, width, height = result["bbox"]
        image = truth.imgs[result["image_id"]]
        assert left >= 0 <= top
        assert left + width <= image["width"] + 0.001
        assert top + height <= image["height"] + 0.001
    loaded = truth.loadRes(str(tmp_path / RESULTS))
    assert len(loaded.getAnnIds()) == len(results)


def test_category_ids_are_those_of_the_names(world: Path, tmp_path: Path) -> None:
    """The most certain detection of an image has the category that the detector calls by name."""
    words = ("--data", "coco", "--data-root", world, "--split", "test-dev", "--workers", 0, "--device", "cpu")
    assert (
        run_here(tmp_path, "evaluate.py", *words, "--weights", world / "model.pt", "--results-json", RESULTS).code == 0
    )
    results = json.loads((tmp_path / RESULTS).read_text())
    truth = COCO(str(world / "annotations/image_info_test-dev2017.json"))
    detector = Detector(world / "model.pt", device="cpu")
    for image in truth.imgs.values():
        first = next(result for result in results if result["image_id"] == image["id"])
        found = detector.predict(world / "test2017" / image["file_name"], conf=0.001)
        assert truth.cats[first["category_id"]]["name"] == found.class_names[0]
        assert first["score"] == pytest.approx(found.scores[0], abs=1e-4)
