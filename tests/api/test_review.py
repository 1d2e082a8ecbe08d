from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detect.api.comparing import review
from detect.api.evaluation_request import EvaluationRequest
from detect.data.shapes import generate_shapes
from detect.errors import InputError
from detect.models.catalog import shipped_weights


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review") / "shapes"
    generate_shapes(folder, 2, 3, 1, image_size=64)
    return folder


def request(data: Path) -> EvaluationRequest:
    weights = shipped_weights()["yolov5n-spd-shapes"]
    return EvaluationRequest(weights, str(data), workers=0, device="cpu", threads=torch.get_num_threads())


def test_a_review_of_a_split(data: Path, tmp_path: Path) -> None:
    lines = list(review(request(data), tmp_path / "out", 0.5, 8))
    assert lines[0].endswith("of 3 images")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["review.csv", "review.json", "sheet.jpg"]


@pytest.mark.parametrize("conf", [0.0, 1.5, float("nan")])
def test_a_score_outside_its_range(data: Path, tmp_path: Path, conf: float) -> None:
    with pytest.raises(InputError, match="--conf: must be above 0 and at most 1, found"):
        list(review(request(data), tmp_path / "out", conf, 8))
    assert not (tmp_path / "out").exists()
