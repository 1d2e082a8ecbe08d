from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest
import torch

from detect.api.comparing import BOX_COLUMNS, compare
from detect.api.evaluation_request import EvaluationRequest
from detect.data.shapes import generate_shapes
from detect.errors import InputError
from detect.models.catalog import shipped_weights
from detect.models.checkpoint import load_checkpoint, rewrite_checkpoint


def request(data: Path, split: str = "val") -> EvaluationRequest:
    return EvaluationRequest(
        Path("none"), str(data), split=split, workers=0, device="cpu", threads=torch.get_num_threads()
    )


def write_smaller(weights: Path, image_size: int, path: Path) -> Path:
    """Write a checkpoint again as one of another image size."""
    rewrite_checkpoint(path, dataclasses.replace(load_checkpoint(weights), image_size=image_size))
    return path


@pytest.mark.slow
def test_a_detector_at_two_sizes(tmp_path: Path) -> None:
    generate_shapes(tmp_path / "shapes", 2, 3, 1, image_size=64)
    weights = shipped_weights()["yolov5n-spd-shapes"]
    other = write_smaller(weights, 32, tmp_path / "b.pt")
    first, second, line, listed, sheet = compare(
        request(tmp_path / "shapes"), (weights, other), tmp_path / "out", None, 8
    )
    assert first.startswith(f"A: {weights}, AP 0.")
    assert second.startswith(f"B: {other}, AP ")
    content = json.loads((tmp_path / "out/compare.json").read_text())
    assert f"of {content['totals']['objects']} objects both find {content['totals']['found_by_both']}" in line
    with (tmp_path / "out/compare.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(BOX_COLUMNS)
    assert len(rows) - 1 == len(content["differences"]) > 0
    assert listed.startswith(f"list of {len(rows) - 1} differences in ")
    assert rows[1][0] == "1"
    assert sheet.endswith(str(tmp_path / "out/sheet.jpg"))
    assert (tmp_path / "out/sheet.jpg").is_file()


@pytest.mark.parametrize("conf", [-0.1, 1.5, float("nan")])
def test_a_score_outside_its_range(tmp_path: Path, conf: float) -> None:
    with pytest.raises(InputError, match=r"^--conf: must be from 0 to 1, found"):
        list(compare(request(tmp_path), (tmp_path, tmp_path), tmp_path / "out", conf, 8))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_blood_cells_at_two_sizes(tmp_path: Path, real_data: Path) -> None:
    """Half the size costs objects. Both count the same objects, and every one of them in one place."""
    weights = shipped_weights()["yolov5n-spd-bccd"]
    other = write_smaller(weights, 192, tmp_path / "b.pt")
    list(compare(request(real_data / "bccd"), (weights, other), tmp_path / "out", None, 8))
    content = json.loads((tmp_path / "out/compare.json").read_text())
    totals = content["totals"]
    assert content["models"]["A"]["AP"] > content["models"]["B"]["AP"]
    assert totals["found_by_a_alone"] > totals["found_by_b_alone"]
    assert sum(value for name, value in totals.items() if name.startswith("found")) == totals["objects"] > 1000
    kinds = [(one["kind"], one["model"]) for one in content["differences"]]
    assert kinds.count(("found by one", "A")) == totals["found_by_a_alone"]
    assert kinds.count(("wrong of one", "B")) == totals["wrong_of_b_alone"]
    images = [one["image"] for one in content["differences"]]
    assert images == sorted(images, key=lambda image: (-images.count(image), images.index(image)))
