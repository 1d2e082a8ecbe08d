"""Every shipped model, built, run and differentiated."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from detect.config.recipe import LossConfig
from detect.errors import InputError
from detect.losses.detection import DetectionLoss
from detect.models.build import build_model
from detect.models.catalog import shipped_models
from detect.models.model import DetectionModel
from detect.structures import Targets
from tests.models.thin import thin
from tests.models.yamls import TINY, read_model, write_model, write_rows

FAST = {"yolov5n-matched", "yolov5n-spd", "csppeleenet-efm-sam", "yolov3-spp"}
"""One of each decoding, and two with a space-to-depth or attention; ``tests/shipped/test_models.py`` has all blocks."""


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in sorted(shipped_models())],
)
def test_every_parameter_learns(name: str) -> None:
    """Forward, loss and backward with an object for each level, on an image that is not square."""
    torch.manual_seed(0)
    model = build_model(f"{name}+width=0.25+depth=0.1", num_classes=3).train()
    raw = model(torch.rand(1, 3, 64, 96))
    assert [tuple(y.shape) for y in raw] == [(1, 3, 64 // r, 96 // r, 8) for r in model.head.reductions]
    boxes = torch.tensor([[10.0, 10, 26, 30], [0, 0, 60, 60], [0, 0, 96, 64]])
    targets = Targets(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 1, 2]), boxes)
    loss = DetectionLoss(LossConfig(), model.head, 640)(raw, targets)
    loss.total.backward()
    silent = [p for p, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert silent == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "strided"), [(f"yolov5n{suffix}", 0 if suffix == "-spd" else 7) for suffix in ("", "-spd", "-matched")]
)
def test_strided_convolutions(name: str, strided: int) -> None:
    """The paper's point: seven convolutions with a stride, or none; and no pooling with a stride either way."""
    layers = list(build_model(name, 2).modules())
    assert sum(layer.stride != (1, 1) for layer in layers if isinstance(layer, nn.Conv2d)) == strided
    assert not [layer for layer in layers if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d))]


@pytest.mark.parametrize("name", thin(["yolov5n", "yolov5n-spd"], 1))
@pytest.mark.parametrize("size_hw", [(32, 32), (32, 160), (96, 64)])
def test_sizes(name: str, size_hw: tuple[int, int]) -> None:
    """Any multiples of the largest reduction; predictions lie where their cells are."""
    model = build_model(name, 2).eval()
    assert model.max_reduction == 32
    with torch.no_grad():
        raw = model(torch.rand(2, 3, *size_hw))
        decoded = model.decode(raw)
    cells = [size_hw[0] // r * (size_hw[1] // r) for r in (8, 16, 32)]
    assert decoded.shape == (2, 3 * sum(cells), 7)
    assert (decoded[..., 4:] >= 0).all()
    assert (decoded[..., 4:] <= 1).all()
    assert (decoded[..., 0] > -16).all()
    assert (decoded[..., 0] < size_hw[1] + 16).all()
    assert (decoded[..., 1] < size_hw[0] + 16).all()


def test_batched_equals_single() -> None:
    model = build_model("yolov5n-spd", 2).eval()
    images = torch.rand(3, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = model.decode(model(images))
        alone = torch.cat([model.decode(model(image[None])) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_start_values() -> None:
    """Convolutions start uniform in +-1/sqrt(fan in); the head expects few objects and no favourite class."""
    torch.manual_seed(0)
    model = build_model("yolov5n", 80)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            limit = 1 / math.sqrt(layer.weight[0].numel())
            assert 0.9 * limit < layer.weight.abs().max() <= limit
    model.eval()
    with torch.no_grad():
        decoded = model.decode(model(torch.rand(1, 3, 640, 640)))
    assert decoded[..., 4].sum() == pytest.approx(3 * 3 * 8, rel=0.5)  # 8 for each level and anchor
    assert decoded[..., 5:].mean() == pytest.approx(0.6 / 79, rel=0.5)


def test_a_seed_is_enough() -> None:
    torch.manual_seed(1)
    first = build_model("yolov5n-spd", 2).state_dict()
    torch.manual_seed(1)
    second = build_model("yolov5n-spd", 2).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_are_named_after_rows(tmp_path: Path) -> None:
    model = build_model(str(write_model(tmp_path, TINY)), 2)
    assert {name.split(".")[2] for name in model.state_dict()} == {"stem", "down", "detect"}
    assert model.num_classes == 2
    assert (model.head.reductions, model.max_reduction) == ((2, 4), 4)
    assert model.definition.name == "tiny"


def test_a_classifier_is_no_detector() -> None:
    message = r": head\.classify: the last row must be AnchorDetect or .*; peleenet is a .*, peleenet\+fpn a detector$"
    with pytest.raises(InputError, match=message):
        build_model("peleenet", 2)
    # A backbone for tiny images has no levels that a neck could read.
    with pytest.raises(InputError, match=r"the last row must be AnchorDetect or AnchorFreeDetect, found Classify$"):
        build_model("densenet40", 2)


def test_the_last_row_must_be_a_head(tmp_path: Path) -> None:
    definition = read_model(write_rows(tmp_path, "name: a, module: Conv, args: {out_channels: 8}"))
    with pytest.raises(
        InputError,
        match=r"model\.yaml: backbone\.a: the last row must be AnchorDetect or AnchorFreeDetect, found Conv$",
    ):
        DetectionModel(definition, 2)


def test_unknown_model() -> None:
    with pytest.raises(InputError, match=r"did you mean 'yolov5n-spd'\?$"):
        build_model("yolov5n_spd", 2)


@pytest.mark.parametrize(("way", "fan"), [("he-in", 3 * 6 * 6), ("he-out", 16 * 6 * 6)])
def test_initialisation_of_he(way: str, fan: int) -> None:
    """The stem of 3 to 16 channels by 6x6 kernels: normal with variance 2 / fan, 1728 weights."""
    torch.manual_seed(0)
    weight = build_model("yolov5n", 1, way).graph.layer("stem").conv.conv.weight
    assert weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.05)
    assert weight.abs().max() > 2.8 * weight.std()  # a uniform distribution ends at 1.7
