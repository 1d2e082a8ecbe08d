"""An image at several costs, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detect import Classifier, Detector
from detect.data.images import write_image
from detect.errors import InputError
from detect.inference import timing
from detect.papers.sdpoint.cost_sheet import CAPTION_PX, GAP_PX, MIN_PANEL_PX, side_by_side, write_cost_sheets
from tests.papers.sdpoint.samples import classifier, detector, record


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed here is timed once."""
    monkeypatch.setattr(timing, "MAX_ROUNDS", 1)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "a.png"
    write_image(path, np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8))
    return path


def test_panels_stand_side_by_side() -> None:
    panels = [np.full((3, 5, 3), 10, np.uint8), np.full((3, 7, 3), 20, np.uint8)]
    sheet = side_by_side(panels)
    assert sheet.shape == (3 + 2 * GAP_PX, 5 + 7 + 3 * GAP_PX, 3)
    np.testing.assert_array_equal(sheet[GAP_PX:-GAP_PX, GAP_PX : GAP_PX + 5], panels[0])
    np.testing.assert_array_equal(sheet[GAP_PX:-GAP_PX, -GAP_PX - 7 : -GAP_PX], panels[1])
    assert (sheet == 255).sum() == sheet.size - 3 * 12 * 3


def test_a_detector(tmp_path: Path, photo: Path) -> None:
    """80 x 40 px are brought to 320 x 160 px, below a caption."""
    predictor = Detector(detector(tmp_path), device="cpu")
    lines = list(write_cost_sheets(predictor, [photo], [1.0, 0.6], tmp_path / "out", conf=0.0, max_det=3))
    assert lines[0].startswith("cost 1: ")
    assert lines[0].endswith(" ms of the network; instance plain: the full network")
    assert lines[1].startswith("cost 0.6: ")
    assert "; instance 1@0.75: costs 0.600 of the full network; AP 0.450" in lines[1]
    assert lines[2:] == [f"{photo}: {tmp_path / 'out/a.jpg'}"]
    image = cv2.imread(str(tmp_path / "out/a.jpg"))
    assert image is not None
    assert image.shape == (MIN_PANEL_PX // 2 + CAPTION_PX + 2 * GAP_PX, 2 * MIN_PANEL_PX + 3 * GAP_PX, 3)


def test_a_classifier(tmp_path: Path, photo: Path) -> None:
    records = (record(0, 1.0, 100, 0.9, "top1"), record(1, 0.5, 40, 0.7, "top1"))
    predictor = Classifier(classifier(tmp_path, records), device="cpu")
    lines = list(write_cost_sheets(predictor, [photo], [1.0, 0.5], tmp_path / "out", image_size=16))
    assert len(lines) == 3
    assert cv2.imread(str(tmp_path / "out/a.jpg")) is not None


@pytest.mark.parametrize(
    ("costs", "options", "message"),
    [
        ([1.0, 0.1], {}, r"cost 0\.1: no instance is within it; 1@0\.5 costs 0\.250"),
        ([1.0], {"image_size": 30}, "image size: must be a multiple of 4"),
        ([1.0], {"conf": 2}, "score threshold: must be from 0 to 1"),
    ],
)
def test_bad_input_leaves_nothing(
    tmp_path: Path, photo: Path, costs: list[float], options: dict[str, Any], message: str
) -> None:
    predictor = Detector(detector(tmp_path), device="cpu")
    with pytest.raises(InputError, match=message):
        list(write_cost_sheets(predictor, [photo], costs, tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_pictures_of_the_user_are_not_replaced(tmp_path: Path, photo: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="is there and not from an earlier prediction"):
        list(write_cost_sheets(Detector(detector(tmp_path), device="cpu"), [photo], [1.0], tmp_path))
    assert (tmp_path / "a.jpg").read_bytes() == b"mine"
