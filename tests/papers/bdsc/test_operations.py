"""Equations 13 to 18 of the BDSC paper, for one layer with as many channels before, between and behind its steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detect.analysis.profile import ModelProfile, profile_model
from detect.analysis.report import comparison_table, summary
from detect.models.build import build_classifier
from detect.models.checkpoint import save_checkpoint
from detect.models.packing import packed_layers
from tests.models.yamls import write_model, write_rows
from tests.tools.running import run_here


def layer(folder: Path, kind: str, channels: int) -> ModelProfile:
    """A 3x3 convolution of a kind on a map of 8x8 cells; its first row makes the channels."""
    first = f"name: first, module: BareConv, args: {{out_channels: {channels}, kernel_size: 1}}"
    args = f"{{out_channels: {channels}, kernel_size: 3}}"
    return profile_model(
        str(write_rows(folder, first, f"name: conv, module: Conv, args: {args}, conv: {{kind: {kind}}}")), 8, 2
    )


def cost(profile: ModelProfile) -> float:
    """Operations of the second row."""
    return sum(one.bdsc_macs for one in profile.rows[1].layers)


def test_operations_at_a_density_of_a_half(tmp_path: Path) -> None:
    """Equation 14: 64 cells * (16 * 16 + 1/4 * 16 * 16 * 9) = 16,384 + 36,864. Equation 15: 1 / (1/9 + 1/4) = 36/13."""
    ordinary, found = layer(tmp_path, "standard", 16), layer(tmp_path, "bdsc", 16)
    assert [one.ones for one in found.layers] == [None, None, 0.5]
    assert cost(found) == 16_384 + 36_864
    assert found.bdsc_macs == cost(found) + 64 * 3 * 16
    assert cost(ordinary) == 64 * 16 * 16 * 9
    assert cost(ordinary) / cost(found) == pytest.approx(36 / 13)  # the paper's 2.77
    assert (ordinary.ones, found.ones) == (None, 0.5)


def test_float_masks_save_nothing(tmp_path: Path) -> None:
    """With floats each entry is a multiply-add."""
    found = layer(tmp_path, "bdsc-float", 16)
    assert cost(found) == found.rows[1].macs == 64 * 16 * 16 * (1 + 9)
    assert found.ones is None


@pytest.mark.parametrize(("channels", "operations", "parameters"), [(32, 2.54, 1.0), (1024, 3.22, 1.27)])
def test_against_depthwise(tmp_path: Path, channels: int, operations: float, parameters: float) -> None:
    """Equations 16 to 18: C * 9 + C * C for each cell; the paper's ranges for C from 32 to 2048 end at the values of
    1024 (at 2048 the first is 3.24).

    Parameters are 4 bytes each, but for the masks' entries of a bit; norms and magnitudes, 4 * 4 + 4 bytes for each
    channel, are not in the paper's equations.
    """
    depthwise, found = layer(tmp_path, "depthwise", channels), layer(tmp_path, "bdsc", channels)
    assert cost(depthwise) == 64 * (9 * channels + channels * channels)
    assert cost(found) / cost(depthwise) == pytest.approx(operations, abs=0.005)
    behind = 16 * channels  # the norm behind the convolution, in both
    mask = found.rows[1].size_bytes - behind - 16 * channels - 4 * channels
    assert mask == channels * channels * (4 + 9 / 8)  # equation 13
    assert mask / (4 * depthwise.rows[1].weights) == pytest.approx(parameters, abs=0.005)


def test_text(tmp_path: Path) -> None:
    ordinary, found = layer(tmp_path, "standard", 16), layer(tmp_path, "bdsc", 16)
    assert (
        "  operations as the BDSC paper counts 0.000 G multiply-adds: of a binary mask half of one for each 1, 50.0%"
        in (summary(found))
    )
    assert "BDSC paper counts 0" not in summary(ordinary)
    assert "of BDSC (G)" in comparison_table([ordinary, found])
    assert "of BDSC (G)" not in comparison_table([ordinary])


def test_masks_that_were_learnt(tmp_path: Path) -> None:
    """Every fourth entry is 1: an eighth of the masks' multiply-adds counts."""
    stem = "{name: stem, module: BareConv, args: {out_channels: 8}}"
    conv = "{name: c5, module: Conv, args: {out_channels: 8, kernel_size: 3}, conv: {kind: bdsc}}"
    text = f"name: tiny\nbackbone:\n  - {stem}\n  - {conv}\nhead:\n  - {{name: classify, module: Classify}}\n"
    model = build_classifier(str(write_model(tmp_path, text)), 2)
    with torch.no_grad():
        for mask in packed_layers(model.graph).values():
            entries = torch.arange(mask.weight.numel()) % 4 == 0
            mask.weight.copy_(torch.where(entries, 0.5, -0.5).view_as(mask.weight))
    facts = {"names": ("a", "b"), "category_ids": (1, 2), "image_size": 32, "metrics": {}, "provenance": {}}
    save_checkpoint(tmp_path / "model.pt", model, **facts)
    ended = run_here(tmp_path, "describe.py", "--weights", "model.pt", "--json")
    assert ended.code == 0, ended
    found = json.loads(ended.output)
    masks = sum(one["macs"] for one in found["layers"] if one["ones"] is not None)
    assert {one["ones"] for one in found["layers"]} == {None, 0.25}
    assert found["bdsc_macs"] == found["macs"] - masks + masks / 8
    assert (found["image_size"], found["num_classes"]) == ([32, 32], 2)
    assert found["file_bytes"] == (tmp_path / "model.pt").stat().st_size


def test_classes_of_a_checkpoint(tmp_path: Path) -> None:
    complaint = run_here(tmp_path, "describe.py", "--weights", "model.pt", "--num-classes", 3).complaint
    assert complaint == "error: --num-classes: belongs to --model; a checkpoint has its own classes"
