"""A strided checkpoint of this toolkit as that of its space-to-depth counterpart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detect.errors import InputError
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from detect.models.foreign.importing import ImportOptions, import_weights

STRIDED, SPD = "yolov5n+width=0.1", "yolov5n-spd+width=0.1"


@pytest.fixture
def strided(tmp_path: Path) -> Path:
    """A checkpoint with anchors and ids of its own."""
    model = build_model(STRIDED, 2)
    model.head.anchors_px.mul_(2)
    path = tmp_path / "strided.pt"
    about = {"metrics": {"AP": 0.5}, "provenance": {}, "value_range": (0.0, 4095.0)}
    save_checkpoint(path, model, names=("a", "b"), category_ids=(3, 7), image_size=96, **about)
    return path


def test_the_checkpoint_is_the_same_but_for_its_form(strided: Path) -> None:
    out = strided.with_name("spd.pt")
    line, about = import_weights(ImportOptions(strided, out, SPD))
    assert line.startswith(f"{strided}: strided weights became SPD: 7 rows rearranged, the function is the same (")
    assert about.startswith(f"{out}: {SPD}, 2 classes, 96 px, ")
    source, found = load_checkpoint(strided), load_checkpoint(out)
    for field in ("names", "category_ids", "image_size", "value_range", "center_crop"):
        assert getattr(found, field) == getattr(source, field)
    assert not found.metrics  # of these weights nothing was measured
    assert torch.equal(found.detector.head.anchors_px, source.detector.head.anchors_px)
    assert found.provenance["imported_from"]["model"] == STRIDED
    image = torch.rand(1, 3, 64, 64)
    boxes, expected = (each.decode(each(image)) for each in (found.detector, source.detector))
    torch.testing.assert_close(boxes, expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "names", "message"),
    [
        (None, None, r"--model must name the space-to-depth form of its strided model, yolov5n\+width=0.1, found none"),
        (STRIDED, None, r"--model must name the space-to-depth form of its strided model"),
        (SPD, "2", r"--names: .*strided\.pt is a checkpoint of this toolkit, which has its own"),
        ("yolov5n-spd", None, r"\d+ of \d+ tensors of yolov5n-spd have no counterpart in yolov5n\+width=0.1; "),
    ],
)
def test_what_is_refused(strided: Path, model: str | None, names: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_weights(ImportOptions(strided, strided.with_name("out.pt"), model, names))
    assert not strided.with_name("out.pt").exists()
