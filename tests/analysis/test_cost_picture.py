from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from detect.analysis.profile import profile_model
from detect.analysis.report import draw_costs
from detect.errors import InputError
from tests.models.yamls import TINY, write_model, write_rows


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image


def red_pixels(image: np.ndarray) -> int:
    """Pixels of the bottleneck's bar and label (BGR)."""
    blue, green, red = (image[..., i].astype(int) for i in range(3))
    return int(((red > 180) & (green < 90) & (blue < 90)).sum())


def test_a_model_without_layers(tmp_path: Path) -> None:
    """There is no bar, and no bottleneck to mark."""
    draw_costs(
        tmp_path / "a.png", [profile_model(str(write_rows(tmp_path, "name: fold, module: SpaceToDepth")), 32, 3)]
    )
    assert red_pixels(read(tmp_path / "a.png")) == 0


@pytest.mark.slow
def test_panels(tmp_path: Path) -> None:
    """A panel more is higher by as much each time; each has a bottleneck."""
    tiny = profile_model(str(write_model(tmp_path, TINY)), 32, 3)
    heights, reds = [], []
    for count in (1, 2, 3):
        draw_costs(tmp_path / "folder" / "a.png", [tiny] * count)
        image = read(tmp_path / "folder" / "a.png")
        heights.append(image.shape[0])
        reds.append(red_pixels(image))
    assert heights[1] - heights[0] == heights[2] - heights[1] > 0
    assert reds[2] > reds[1] > reds[0] > 100
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a.png"]


@pytest.mark.slow
def test_names_that_mean_something_to_matplotlib(tmp_path: Path) -> None:
    """A formula that is none, letters that its font lacks, a leading underscore: all are drawn, without a warning."""
    profiles = []
    for name in ("$x^{$", "\u6a21\u578b", "_hidden"):
        text = TINY.replace("name: tiny", f"name: {name!r}")
        profiles.append(profile_model(str(write_model(tmp_path, text)), 32, 3))
    draw_costs(tmp_path / "a.png", profiles)
    assert red_pixels(read(tmp_path / "a.png")) > 300


@pytest.mark.parametrize("name", ["costs.jpg", "costs", ".png"])
def test_not_a_png(tmp_path: Path, name: str) -> None:
    tiny = profile_model(str(write_model(tmp_path, TINY)), 32, 3)
    with pytest.raises(InputError, match=r": the picture is a PNG file; its name must end in \.png$"):
        draw_costs(tmp_path / name, [tiny])
    assert not (tmp_path / name).exists()
