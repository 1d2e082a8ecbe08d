from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from detect.analysis.profile import count_bytes, measure_file
from detect.config.model import Convolutions
from detect.errors import InputError
from detect.models.blocks.conv import replace_convolutions
from detect.models.build import build_classifier, build_model
from detect.models.catalog import find_definition
from detect.models.checkpoint import save_checkpoint
from detect.models.packing import packed_layers
from tests.models.yamls import TINY, write_model, write_rows


def test_nothing() -> None:
    assert count_bytes(nn.ReLU()) == 0


@pytest.mark.parametrize(
    ("conv", "expected"),
    [
        # stem: 3*9*8 weights, a norm of 8; down: 8*9*16 weights, a norm of 16; head: (8 + 1) * 8 and (16 + 1) * 8.
        ("standard", 4 * (216 + 4 * 8 + 1152 + 4 * 16 + 72 + 136)),
        # down: 8*16 weights of the 1x1, a norm of 16, 16*9*16 bits, 16 magnitudes, and its own norm as before.
        ("bdsc", 4 * (216 + 4 * 8 + 128 + 4 * 16 + 16 + 4 * 16 + 72 + 136) + 2304 // 8),
        # 8 of 8 channels in between, and no norm there.
        ("{kind: bdsc, p_of: input, norm: false}", 4 * (216 + 4 * 8 + 64 + 16 + 4 * 16 + 72 + 136) + 1152 // 8),
        # As bdsc, but every entry is a value and there are no magnitudes.
        ("bdsc-float", 4 * (216 + 4 * 8 + 128 + 4 * 16 + 2304 + 4 * 16 + 72 + 136)),
        # down: 8*9 filters, a norm of 8, 8*16 weights of the 1x1.
        ("depthwise", 4 * (216 + 4 * 8 + 72 + 4 * 8 + 128 + 4 * 16 + 72 + 136)),
    ],
)
def test_hand_counted(tmp_path: Path, conv: str, expected: int) -> None:
    """TINY with 3 classes."""
    assert count_bytes(build_model(str(write_model(tmp_path, f"{TINY}conv: {conv}\n")), 3)) == expected


def test_bits_that_fill_no_byte() -> None:
    """One output of 3 * 9 entries: 27 bits are 4 bytes, and the magnitude 4; the 1x1 before has 3 * 3 weights."""
    model = nn.Sequential(nn.Conv2d(3, 1, 3, bias=False))
    replace_convolutions(model, Convolutions("bdsc", 3, norm=False))
    assert count_bytes(model) == 4 * 3 * 3 + 4 + 4


@pytest.mark.parametrize("conv", ["standard", "bdsc"])
def test_the_file_is_as_large_as_said(tmp_path: Path, conv: str) -> None:
    path = str(write_model(tmp_path, f"{TINY}conv: {conv}\n"))
    facts = {"names": ("0", "1"), "category_ids": (0, 1), "image_size": 64, "metrics": {}, "provenance": {}}
    save_checkpoint(tmp_path / "model.pt", build_model(path, 2), **facts)
    assert measure_file(find_definition(path), 2, 64) == (tmp_path / "model.pt").stat().st_size


def test_the_file_of_a_classifier_holds_bits() -> None:
    """ResNet-20's binary weights would take 1.1 MiB as values; the names and the archive's index take less."""
    name = "resnet20+bdsc"
    with torch.device("meta"):
        model = build_classifier(name, 10)
    entries = sum(layer.weight.numel() for layer in packed_layers(model).values())
    assert entries == 6 * 9 * (16**2 + 32**2 + 64**2)  # six layers of each width
    counted, found = count_bytes(model), measure_file(find_definition(name), 10, 32)
    assert found is not None
    assert counted < found < counted + 100_000


def test_rows_without_a_head_have_no_file(tmp_path: Path) -> None:
    path = str(write_rows(tmp_path, "name: fold, module: SpaceToDepth"))
    assert measure_file(find_definition(path), 2, 64) is None


def test_a_head_that_does_not_fit(tmp_path: Path) -> None:
    path = str(write_model(tmp_path, TINY.replace("[[[4, 4]], [[9, 8]]]", "[[[4, 4]]]")))
    with pytest.raises(InputError, match="detect"):
        measure_file(find_definition(path), 2, 64)
