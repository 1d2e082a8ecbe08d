"""The Reference backbones and detectors on them, by number: Darknet's exactly, the reconstructed ones within 5 %."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from detect.analysis.profile import ModelProfile, build_on_meta, profile_graph
from detect.errors import InputError
from detect.models.blocks.pool import StrideOnePool
from detect.models.build import build_graph, build_model
from detect.models.graph import Graph
from tests.models.thin import thin

BACKBONES = ("darknet-tiny", "csppeleenet-reference", "cspdensenet-reference", "cspdensenet-reference-b")
DETECTORS = (
    *("yolov3-tiny", "yolov3-tiny-prn"),
    *("csppeleenet-reference-efm-sam", "csppeleenet-reference-prn-3l", "csppeleenet-reference-prn"),
    *("cspdensenet-reference-efm-sam", "cspdensenet-reference-prn", "cspdensenet-reference-b-prn"),
)


@pytest.mark.parametrize(
    ("name", "size", "num_classes", "weights", "parameters", "macs"),
    [
        # Weights of 3x3 convolutions: 9 * (3*16 + 16*32 + 32*64 + 64*128 + 128*256 + 256*512 + 512*1024) = 6,290,352;
        # the classifier's 1024 * 1000. Norms: 2 * (16 + 32 + 64 + 128 + 256 + 512 + 1024) = 4064; 1000 biases.
        ("darknet-reference", 256, 1000, 7_314_352, 7_314_352 + 4064 + 1000, 482_320_384),
        # 6,290,352; 1024*256 + 9*256*512 + 512*255 + 256*128 + 9*(128 + 256)*256 + 256*255 = 2,555,136.
        # Norms: 4064 + 2 * (256 + 512 + 128 + 256) = 6368; 2 * 255 biases.
        ("yolov3-tiny", 416, 80, 8_845_488, 8_845_488 + 6368 + 510, 2_782_480_896),
        # 6,290,352 - 9*512*512 = 3,931,056; PRN behind 512 channels: (512 + 9*256 + 255 + 128)*256 + (9*128 + 255)*128
        # = 999,040. Norms: 4064 - 2*512 + 2 * (256 + 256 + 128 + 128) = 4576; 2 * 255 biases.
        ("yolov3-tiny-prn", 416, 80, 4_930_096, 4_930_096 + 4576 + 510, 1_730_430_208),
    ],
)
def test_darknets_own(name: str, size: int, num_classes: int, weights: int, parameters: int, macs: int) -> None:
    profile = cost(name, size, num_classes)
    assert (profile.weights, profile.parameters, profile.macs) == (weights, parameters, macs)


@pytest.mark.parametrize(
    ("name", "weights_millions", "bflops"),
    # CSPNet, Table 3.
    thin([("csppeleenet-reference", 4.10, 1.103), ("cspdensenet-reference", 3.48, 0.886)]),
)
def test_classifiers_of_the_paper(name: str, weights_millions: float, bflops: float) -> None:
    profile = cost(name, 224, 1000)
    assert profile.weights / 1e6 == pytest.approx(weights_millions, rel=0.05)
    assert profile.bflops == pytest.approx(bflops, rel=0.05)


@pytest.mark.parametrize(
    ("name", "millions_in_file", "bflops"),
    # CSPNet, Table 4, at 320 px.
    thin(
        [
            ("csppeleenet-reference-efm-sam", 5.67, 3.43),
            ("csppeleenet-reference-prn-3l", 4.79, 3.15),
            ("csppeleenet-reference-prn", 4.59, 2.56),
            ("cspdensenet-reference-efm-sam", 5.05, 2.89),
            ("cspdensenet-reference-prn", 3.97, 2.01),
            ("cspdensenet-reference-b-prn", 1.87, 1.59),
        ],
        5,
    ),
)
def test_detectors_of_the_paper(name: str, millions_in_file: float, bflops: float) -> None:
    profile = cost(name, 320, 80)
    assert profile.stored_values / 1e6 == pytest.approx(millions_in_file, rel=0.05)
    assert profile.bflops == pytest.approx(bflops, rel=0.05)


@pytest.mark.slow
def test_what_the_headers_state() -> None:
    """Convolution weights of the classifiers, and the detectors' parameters, in the configurations' comments."""
    assert cost("csppeleenet-reference", 224, 1000).weights == 4_217_264
    assert cost("cspdensenet-reference", 224, 1000).weights == 3_564_464
    detectors = {name: cost(name, 320, 80) for name in DETECTORS[2:]}
    assert {name: (profile.parameters, profile.stored_values) for name, profile in detectors.items()} == {
        "csppeleenet-reference-efm-sam": (5_498_093, 5_516_973),
        "csppeleenet-reference-prn-3l": (4_655_853, 4_672_045),
        "csppeleenet-reference-prn": (4_458_606, 4_474_286),
        "cspdensenet-reference-efm-sam": (4_907_405, 4_921_069),
        "cspdensenet-reference-prn": (3_872_014, 3_882_478),
        "cspdensenet-reference-b-prn": (1_825_934, 1_833_198),
    }


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("darknet-tiny", [64, 128, 256, 1024]),
        # A stage adds (layers * growth): 64 + 2*32, + 3*32, + 4*64, + 6*64.
        ("csppeleenet-reference", [128, 224, 480, 864]),
        # 64 + 2*32, + 2*32, + 2*32, + 4*128 or 4*48.
        ("cspdensenet-reference", [128, 192, 256, 768]),
        ("cspdensenet-reference-b", [128, 192, 256, 448]),
    ],
)
def test_maps(name: str, channels: list[int]) -> None:
    shapes = on_meta(name).shapes
    assert [shapes[row].channels for row in ("c2", "c3", "c4", "c5")] == channels
    assert [shapes[row].reduction for row in ("c2", "c3", "c4", "c5")] == [4, 8, 16, 32]


def test_the_classifier_is_no_backbone_of_detectors() -> None:
    assert on_meta("darknet-reference").shapes["c5"].reduction == 64
    with pytest.raises(InputError, match=r"neck\.cat4: from: unknown layer 'c4'"):
        build_graph("darknet-reference+fpn-tiny", 2)


@pytest.mark.slow
def test_the_lighter_one_is_narrower_in_its_last_stage() -> None:
    heavy, light = cost("cspdensenet-reference", 224, 10), cost("cspdensenet-reference-b", 224, 10)
    differ = [a.name for a, b in zip(heavy.rows, light.rows, strict=True) if a.weights != b.weights]
    assert differ == ["stage5", "c5", "classify"]


def test_tiny_rows_stand_in_darknets_order() -> None:
    """Coarse level first: an importer of weights reads the convolutions row by row."""
    rows = [row.name for row in on_meta("yolov3-tiny").definition.rows]
    assert rows[-8:] == ["c5", "fuse5", "p5", "lateral5", "up5", "cat4", "p4", "detect"]


@pytest.mark.parametrize(
    ("name", "downsample"), thin([(name, word) for name in DETECTORS for word in ("stride", "spd")], 1, 2, 5, 10)
)
def test_every_parameter_learns(name: str, downsample: str) -> None:
    """At a quarter of the width, on images that are not square."""
    torch.manual_seed(0)
    model = build_model(f"{name}+downsample={downsample}+width=0.25", num_classes=2).train()
    raw = model(torch.rand(2, 3, 64, 96))
    assert [y.shape for y in raw] == [(2, 3, 64 // r, 96 // r, 7) for r in model.head.reductions]
    sum(y.square().mean() for y in raw).backward()
    silent = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize(
    "name", [*DETECTORS[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in DETECTORS[2:])]
)
def test_halving(name: str) -> None:
    """Five pools and no stride, as in Darknet Reference (EFM pools three maps more); with ``spd`` nothing of both."""
    expected = 8 if name.endswith("efm-sam") else 5
    assert len(shrinking_pools(f"{name}+width=0.25")) == expected
    assert shrinking_pools(f"{name}+spd+width=0.25") == []
    for word in ("stride", "spd"):
        layers = on_meta(f"{name}+downsample={word}+width=0.25").modules()
        assert {layer.stride for layer in layers if isinstance(layer, nn.Conv2d)} == {(1, 1)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darknet-reference", *BACKBONES])
@pytest.mark.parametrize("downsample", ["stride", "spd"])
def test_classifiers_learn(name: str, downsample: str) -> None:
    torch.manual_seed(0)
    graph = build_graph(f"{name}+downsample={downsample}+width=0.25", num_classes=5).train()
    logits = graph(torch.rand(2, 3, 128, 192))
    assert logits.shape == (2, 5)
    logits.square().mean().backward()
    assert [key for key, p in graph.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_stride_one_pool_stays_in_spd() -> None:
    assert isinstance(on_meta("darknet-tiny+spd").layer("pool5"), StrideOnePool)


@functools.cache
def cost(name: str, size: int, num_classes: int) -> ModelProfile:
    """The profile of a model, made once."""
    return profile_graph(build_on_meta(name, num_classes), size, num_classes, memory=False)


def on_meta(name: str) -> Graph:
    """A graph that has shapes but no values."""
    with torch.device("meta"):
        return build_graph(name, 2)


def shrinking_pools(name: str) -> list[str]:
    """The pools that a model runs on a map to make it smaller."""
    return [layer.path for layer in cost(name, 64, 2).layers if "pool" in layer.kind and layer.out_hw < layer.in_hw]
