"""tools/ship.py, and shipped checkpoints by name in the other tools."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detect.exporting.ship import sha256
from detect.models.catalog import shipped_weights
from tests.tools.running import run_here

NAME = "yolov5n-spd-shapes"


@pytest.mark.slow
def test_a_name_is_enough(tmp_path: Path) -> None:
    """What was shipped is shipped again under another name, and found as a file in the current folder."""
    ended = run_here(tmp_path, "ship.py", "--weights", NAME, "--out", "again.pt")
    assert ended.code == 0, ended
    assert sha256(tmp_path / "again.pt") in ended.output
    again, shipped = (torch.load(path, weights_only=True) for path in (tmp_path / "again.pt", shipped_weights()[NAME]))
    torch.testing.assert_close(again.pop("state_dict"), shipped.pop("state_dict"), rtol=0, atol=0)
    assert again == shipped
    image = np.full((192, 192, 3), 60, np.uint8)
    cv2.circle(image, (50, 60), 30, (60, 200, 220), -1)
    cv2.imwrite(str(tmp_path / "disc.png"), image)
    options = ("--source", "disc.png", "--out", "out", "--save-json", "--device", "cpu")
    assert run_here(tmp_path, "predict.py", "--weights", NAME, *options).code == 0
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [entry["category"] for entry in found] == ["disc"]


@pytest.mark.parametrize(
    "words",
    [
        ("predict.py", "--source", "."),
        ("evaluate.py", "--data", "shapes"),
        ("export.py",),
        ("compare_costs.py", "--source", "."),
        ("train.py", "--data", "shapes"),
        ("ship.py", "--out", "a.pt"),
    ],
    ids=lambda words: words[0],
)
def test_a_wrong_name(tmp_path: Path, words: tuple[str, ...]) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32, 3), np.uint8))
    ended = run_here(tmp_path, *words, "--weights", "yolov5n-spd-shape")
    expected = "error: 'yolov5n-spd-shape' is neither a file nor one of weights/; did you mean 'yolov5n-spd-shapes'?"
    assert ended.complaint == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


def test_the_instances_of_one_that_has_none(tmp_path: Path) -> None:
    ended = run_here(tmp_path, "evaluate.py", "--weights", NAME, "--data", "shapes", "--instances")
    assert "yolov5n-spd-shapes: the checkpoint has no instances" in ended.complaint
