"""Any backbone, any neck, strided or space-to-depth: built by naming the parts.

The fast test runs one backbone with a neck of every file, each strided or space-to-depth, with one or two blocks a
stage (the other backbones' tests run each alone); the slow tests run all backbones, and every neck both ways at full
depth; all at a quarter of the width.
The table of shapes, parameters and multiply-adds at full depth is ``golden/combinations.txt``; after an intended
change, write it again with ``python -m tests.models.test_combinations``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detect.models.build import build_model
from detect.models.catalog import find_definition, shipped_parts
from detect.models.model import DetectionModel

TABLE = Path(__file__).parent / "golden" / "combinations.txt"
NUM_CLASSES = 2
HEIGHT, WIDTH = 64, 96


def is_combined(backbone: str) -> bool:
    """Whether a backbone has the four levels that necks read, unlike networks for tiny images, and a strided form."""
    definition = find_definition(backbone)
    is_pyramid = {"c2", "c3", "c4", "c5"} <= {row.name for row in definition.rows}
    return is_pyramid and definition.sections[0].defaults["downsample"] == "stride"


BACKBONES = [name for name in shipped_parts("backbone") if is_combined(name)]
NECKS = list(shipped_parts("neck"))
NECK_OF_EACH_FILE = {path: name for name, path in shipped_parts("neck").items()}.values()
DOWNSAMPLE = ("stride", "spd")


def names_of(backbone: str) -> list[str]:
    """The combinations with a backbone."""
    return [f"{backbone}+{neck}+downsample={word}+width=0.25" for neck in NECKS for word in DOWNSAMPLE]


def strided_layers(model: nn.Module) -> list[str]:
    """Convolutions with a stride and pools that shrink the map."""
    found = []
    for name, layer in model.named_modules():
        stride = getattr(layer, "stride", 1) if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)) else 1
        if stride not in (1, (1, 1)):
            found.append(name)
    return found


def assert_runs(name: str) -> None:
    """Forward and backward: an output for each level, and a finite gradient for every parameter."""
    torch.manual_seed(0)
    model = build_model(name, NUM_CLASSES).train()
    raw = model(torch.rand(2, 3, HEIGHT, WIDTH))
    assert_shapes(model, raw)
    sum(level.square().mean() for level in raw).backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without, f"{name}: {without[:3]}"
    if "+downsample=spd" in name:
        assert not strided_layers(model), name


def assert_shapes(model: DetectionModel, raw: list[Tensor]) -> None:
    """(B, A, H / reduction, W / reduction, 5 + K) for each level that the head has."""
    head = model.head
    assert [tuple(level.shape) for level in raw] == [
        (2, head.anchors_px.shape[1], HEIGHT // reduction, WIDTH // reduction, 5 + NUM_CLASSES)
        for reduction in head.reductions
    ]


def test_there_are_many() -> None:
    assert len(BACKBONES) >= 20
    assert {"fpn", "panet", "panet-spp", "prn", "prn-3l", "cem", "gfm", "efm", "efm-sam"} <= set(NECKS)


@pytest.mark.parametrize(
    "backbone",
    [name if name == "resnet10" else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES],
)
def test_combination(backbone: str) -> None:
    for i, neck in enumerate(NECK_OF_EACH_FILE, start=BACKBONES.index(backbone)):
        assert_runs(f"{backbone}+{neck}+downsample={DOWNSAMPLE[i % 2]}+width=0.25+depth=0.1")


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_combination_with_p2(backbone: str) -> None:
    """A level of 4 px cells behind every backbone, with the necks in turn."""
    place = BACKBONES.index(backbone)
    neck = NECKS[place % len(NECKS)]
    assert_runs(f"{backbone}+{neck}+p2+downsample={DOWNSAMPLE[place % 2]}+width=0.25+depth=0.1")


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_combination_at_full_depth(backbone: str) -> None:
    for name in names_of(backbone):
        assert_runs(name)


def describe(name: str) -> str:
    """The line of a combination: name, shape of each level's map, parameters, multiply-adds of one image."""
    with torch.device("meta"):
        model = build_model(name, NUM_CLASSES).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            raw = model(torch.empty(2, 3, HEIGHT, WIDTH))
    assert_shapes(model, raw)
    maps = " ".join("x".join(str(side) for side in level.shape[1:]) for level in raw)
    parameters = sum(p.numel() for p in model.parameters())
    return f"{name}  {maps}  {parameters}  {counter.get_total_flops() // 4}"


@pytest.mark.slow
def test_table_of_shapes() -> None:
    assert TABLE.read_text(encoding="utf-8").splitlines() == [
        describe(name) for backbone in BACKBONES for name in names_of(backbone)
    ]


if __name__ == "__main__":
    lines = [describe(name) for backbone in BACKBONES for name in names_of(backbone)]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
