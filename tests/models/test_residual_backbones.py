"""The residual backbones, YOLOv3's neck, PANet, and the large detectors, by number and by structure."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import Bottleneck

from detect.models.blocks.downsample import Pool
from detect.models.blocks.pool import SPP
from detect.models.blocks.preresidual import PreResidualBlock
from detect.models.blocks.residual import ResidualBlock
from detect.models.build import build_graph
from detect.models.graph import Graph
from tests.models.thin import thin

BACKBONES = (
    *("darknet53", "cspdarknet53", "cspresnet50", "cspresnext50", "resnext50", "resnext101", "resnext50-darknet"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnet10", "cspresnet10", "resnet50-darknet", "resnet101-darknet", "resnet152-darknet"),
    *("preresnet18", "preresnet50", "preresnet101"),
)
NECKS = ("fpn", "fpn-spp", "panet", "panet-spp")


def on_meta(name: str, num_classes: int) -> Graph:
    """A graph that has shapes but no values."""
    with torch.device("meta"):
        return build_graph(name, num_classes)


def shapes_of(graph: Graph, *rows: str) -> list[tuple[int, int]]:
    """Channels and reduction of rows."""
    return [(graph.shapes[row].channels, graph.shapes[row].reduction) for row in rows]


@pytest.mark.parametrize(
    ("name", "num_classes", "size", "parameters", "macs"),
    thin(
        [
            # Darknet's files and those of the CSPNet authors
            ("resnet10", 1000, 256, 5_244_968, 1_136_119_808),
            # The classifier is applied to each of 8 x 8 cells, then averaged: 63 * 2048 * 1000 more than once.
            ("resnet50-darknet", 1000, 256, 22_780_456, 4_999_610_368),
            ("resnext50-darknet", 1000, 256, 22_252_328, 5_055_135_744),
            ("darknet53", 1000, 256, 41_609_928, 9_285_115_904),
            ("cspresnet50", 1000, 256, 21_607_848, 4_483_686_400),
            ("cspresnext50", 1000, 256, 20_557_480, 3_964_616_704),
            ("cspdarknet53", 1000, 256, 27_642_184, 6_533_652_480),
            # 2,766,016 weights; 2 values per channel of the norms: 64 + [64 + 64 + 2 * 64 + 64 + 64] + [64 * 5 + 128] +
            # [128 * 5 + 256] + [256 * 5 + 512] = 3584; 1000 biases
            ("cspresnet10", 1000, 256, 2_766_016 + 2 * 3584 + 1000, 930_598_912),
            # torchvision's
            ("resnet50", 1000, 224, 25_557_032, 4_089_184_256),
            # SDPoint's, see test_flops_as_sdpoint_counts
            ("preresnet101", 1000, 224, 44_549_288, 7_801_405_440),
            ("resnext101", 1000, 224, 44_177_704, 7_969_996_800),
            # detectors, files as above
            ("yolov3", 80, 320, 61_949_149, 19_486_412_800),
            ("yolov3", 80, 416, 61_949_149, 32_932_037_632),
            ("yolov3", 80, 608, 61_949_149, 70_345_950_208),
            ("yolov3-spp", 80, 608, 62_998_749, 70_724_486_144),
            ("cspresnext50-panet-spp", 80, 320, 56_942_525, 13_924_044_800),
            ("cspresnext50-panet-spp", 80, 416, 56_942_525, 23_531_635_712),
            ("cspresnext50-panet-spp", 80, 512, 56_942_525, 35_645_554_688),
            ("cspresnext50-panet-spp", 80, 608, 56_942_525, 50_265_801_728),
            ("cspresnet50-panet-spp", 80, 512, 58_328_765, 37_323_276_288),
            ("cspdarknet53-panet-spp", 80, 512, 64_363_101, 45_523_140_608),
            ("yolov4", 80, 512, 64_363_101, 45_523_140_608),
        ],
        0,
        7,
    ),
)
def test_counts(name: str, num_classes: int, size: int, parameters: int, macs: int) -> None:
    graph = on_meta(name, num_classes).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        graph(torch.empty(1, 3, size, size, device="meta"))
    assert sum(p.numel() for p in graph.parameters()) == parameters
    assert counter.get_total_flops() == 2 * macs


def official_flops(name: str, size: int) -> int:
    """FLOPs in the way of SDPoint's published counter, which takes multiplications and additions apart.

    For each output element 2 k * k * C / groups of a convolution, 2 of a batch norm, 1 of a ReLU, 1 of an addition of
    maps, 9 of the 3x3 max-pool; 2 for each weight and 1 for each bias of the linear layer. The global pool adds up
    windows of one row and one column more than the map has.
    """
    graph = on_meta(name, 1000).eval()
    total = 0

    def count(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            each = 2 * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            _, channels, height, width = last_map
            total += channels * (height + 1) * (width + 1)
            each = 2 * layer.in_features + 1
        else:
            each = {nn.BatchNorm2d: 2, nn.ReLU: 1, ResidualBlock: 1, PreResidualBlock: 1, Pool: 9}.get(type(layer), 0)
        total += each * output.numel()

    for layer in graph.modules():
        layer.register_forward_hook(count)
    last_map = (1, graph.shapes["c5"].channels, size // 32, size // 32)
    graph(torch.empty(1, 3, size, size, device="meta"))
    return total


@pytest.mark.parametrize(("name", "flops"), thin([("preresnet101", 15_661_473_256), ("resnext101", 16_013_031_400)]))
def test_flops_as_sdpoint_counts(name: str, flops: int) -> None:
    """What the published code counts; its paper states 15.7 and 16.0 GFLOPs."""
    assert official_flops(name, 224) == flops


@pytest.mark.parametrize("name", thin(["resnet18", "resnet34", "resnet101", "resnet152", "resnext101"], 0))
def test_as_many_parameters_as_torchvision(name: str) -> None:
    with torch.device("meta"):
        if name == "resnext101":  # torchvision builds it with 8 channels a group only
            theirs = torchvision.models.ResNet(Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4)
        else:
            theirs = torchvision.models.get_model(name)
    assert [p.shape for p in on_meta(name, 1000).parameters()] == [p.shape for p in theirs.parameters()]


@pytest.mark.parametrize(
    ("name", "theirs"), thin([("resnet18", "resnet18"), ("resnet50", "resnet50"), ("resnext50", "resnext50_32x4d")], 0)
)
def test_computes_what_torchvision_does(name: str, theirs: str) -> None:
    """Weights, norms included, have the same order, so they can be copied one after the other."""
    torch.manual_seed(0)
    reference = torchvision.models.get_model(theirs, num_classes=5).eval()
    for layer in reference.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.2, 0.6)  # small, so that the sum of all blocks stays near 1
            nn.init.normal_(layer.bias, std=0.1)
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
    graph = build_graph(name, num_classes=5).eval()
    ours = graph.state_dict()
    graph.load_state_dict(dict(zip(ours, reference.state_dict().values(), strict=True)))
    norms = [m for m in graph.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), reference(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("downsample", ["stride", "spd"])
@pytest.mark.parametrize("name", thin(BACKBONES, 0, 1, 4, 12, 17))
def test_backbone_rows(name: str, downsample: str) -> None:
    """A neck finds c2 to c5 at 4, 8, 16 and 32 pixels per cell, in every form."""
    graph = on_meta(f"{name}+downsample={downsample}", 3)
    assert [reduction for _, reduction in shapes_of(graph, "c2", "c3", "c4", "c5")] == [4, 8, 16, 32]


def test_grouped_stages_have_the_stated_widths() -> None:
    rows = ("c2", "c3", "c4", "c5")
    expected = [(256, 4), (512, 8), (1024, 16), (2048, 32)]
    assert shapes_of(on_meta("cspresnext50", 3), *rows) == expected
    assert shapes_of(on_meta("cspresnext50+spd", 3), *rows) == expected
    assert shapes_of(on_meta("cspresnet50", 3), *rows) == [(128, 4), (256, 8), (512, 16), (1024, 32)]
    graph = on_meta("cspresnext50+width=0.25+gamma=0.25", 3)
    # A quarter of 256 is 64 divided channels, 48 of which are computed: 16 groups are what 32 and 48 share.
    assert {conv.groups for conv in graph.layer("c2").modules() if isinstance(conv, nn.Conv2d)} == {1, 16}


@pytest.mark.parametrize("name", thin([name for name in BACKBONES if "csp" not in name], 9))
def test_any_residual_backbone_can_be_partial(name: str) -> None:
    """The more passes by, the less there is to learn. (Where little does, the transitions may outweigh that.)"""
    words = ("", "+fusion=csp", "+fusion=csp+gamma=0.75", "+fusion=csp+gamma=0.9")
    sizes = [sum(p.numel() for p in on_meta(name + w, 1000).parameters()) for w in words]
    assert sizes == sorted(set(sizes), reverse=True)


def test_space_to_depth_replaces_the_max_pool_of_the_stem() -> None:
    """Stem: 4 * 3 to 64 channels in 3x3; pool: 4 * 64 back to 64 in 1x1; stages: 4 * C back to C in 1x1."""
    graph = on_meta("resnet50+spd", 1000)
    assert convolutions(graph, "stem", "stem_pool") == [(64, 12, 3), (64, 256, 1)]
    assert [convolutions(graph, row)[0] for row in ("c3", "c4", "c5")] == [
        (256, 1024, 1),
        (512, 2048, 1),
        (1024, 4096, 1),
    ]
    assert_keeps_all_pixels(graph)


def assert_trains(name: str) -> Graph:
    """Forward and backward at 64 x 96 px give every parameter a finite gradient."""
    torch.manual_seed(0)
    graph = build_graph(name, num_classes=3)
    output = graph(torch.randn(2, 3, 64, 96))
    outputs = output if isinstance(output, list) else [output]
    sum((level.float() ** 2).mean() for level in outputs).backward()
    for path, parameter in graph.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
    return graph


def assert_keeps_all_pixels(graph: Graph) -> None:
    """No convolution and no shortcut has a stride, and nothing pools; SPP's pools keep the resolution."""
    for path, module in graph.named_modules():
        assert not isinstance(module, nn.Conv2d) or module.stride == (1, 1), path
        assert not isinstance(module, ResidualBlock) or module.stride == 1, path
        assert not isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)), path
        assert not isinstance(module, Pool) or module.conv is not None, path


@pytest.mark.slow
@pytest.mark.parametrize("downsample", ["stride", "spd"])
@pytest.mark.parametrize("name", thin(BACKBONES, 1, 4, 12, 17))
def test_backbone_trains(name: str, downsample: str) -> None:
    graph = assert_trains(f"{name}+width=0.25+depth=0.25+downsample={downsample}")
    if downsample == "spd":
        assert_keeps_all_pixels(graph)


@pytest.mark.slow
@pytest.mark.parametrize("downsample", ["stride", "spd"])
@pytest.mark.parametrize("neck", NECKS)
def test_neck_trains(neck: str, downsample: str) -> None:
    graph = assert_trains(f"resnet10+{neck}+width=0.25+downsample={downsample}")
    assert [reduction for _, reduction in shapes_of(graph, "p3", "p4", "p5")] == [8, 16, 32]
    assert sum(isinstance(module, SPP) for module in graph.modules()) == neck.endswith("spp")
    if downsample == "spd":
        assert_keeps_all_pixels(graph)


@pytest.mark.parametrize(
    "name", thin(["cspdarknet53+panet-spp", "cspresnext50+panet", "darknet53+fpn", "resnet50+fusion=csp+panet"])
)
def test_parts_combine(name: str) -> None:
    assert_keeps_all_pixels(assert_trains(f"{name}+spd+width=0.25+depth=0.25+gamma=0.25"))


def convolutions(graph: Graph, *rows: str) -> list[tuple[int, int, int]]:
    """(out, in, kernel size) of all convolutions of rows, in order."""
    return [
        (m.out_channels, m.in_channels, m.kernel_size[0])
        for row in rows
        for m in graph.layer(row).modules()
        if isinstance(m, nn.Conv2d)
    ]


def neck_rows(graph: Graph) -> list[str]:
    """The names of the neck's rows, in order."""
    return [row.name for row in graph.definition.rows if row.section == "neck"]


def conv_set(channels: int, inputs: int) -> list[tuple[int, int, int]]:
    """The five convolutions between two levels."""
    narrow, wide = (channels, 2 * channels, 1), (2 * channels, channels, 3)
    return [(channels, inputs, 1), wide, narrow, wide, narrow]


def test_fpn_has_the_order_of_darknet() -> None:
    """yolov3.cfg: coarse to fine, each level's last 3x3 convolution before the way to the next level."""
    graph = on_meta("yolov3", 80)
    expected = [*conv_set(512, 1024), (1024, 512, 3), (256, 512, 1)]
    expected += [*conv_set(256, 256 + 512), (512, 256, 3), (128, 256, 1)]
    expected += [*conv_set(128, 128 + 256), (256, 128, 3)]
    assert convolutions(graph, *neck_rows(graph)) == expected
    assert graph.definition.rows[-2].name == "p3"
    inputs = {row.name: row.inputs for row in graph.definition.rows}
    assert inputs["cat4"] == ("up5", "c4")
    assert inputs["cat3"] == ("up4", "c3")


def test_panet_has_the_order_of_darknet() -> None:
    """csresnext50-panet-spp.cfg: down to the finest level, then back; each level's 3x3 behind its five convolutions."""
    graph = on_meta("cspresnext50-panet-spp", 80)
    expected = [(512, 2048, 1), (1024, 512, 3), (512, 1024, 1), (512, 2048, 1), (1024, 512, 3), (512, 1024, 1)]
    expected += [(256, 512, 1), (256, 1024, 1), *conv_set(256, 512)]
    expected += [(128, 256, 1), (128, 512, 1), *conv_set(128, 256), (256, 128, 3)]
    expected += [(256, 128, 3), *conv_set(256, 512), (512, 256, 3)]
    expected += [(512, 256, 3), *conv_set(512, 1024), (1024, 512, 3)]
    assert convolutions(graph, *neck_rows(graph)) == expected
    inputs = {row.name: row.inputs for row in graph.definition.rows}
    assert inputs["cat4"] == ("lateral4", "up5")
    assert inputs["cat3"] == ("lateral3", "up4")
    assert inputs["cat_p4"] == ("down_p3", "set4")
    assert inputs["cat_p5"] == ("down_p4", "set5")


def test_partial_stage_has_the_order_of_darknet() -> None:
    """csresnext50.cfg, first stage: what passes by, what is computed, three blocks, the two transitions."""
    block = [(128, 128, 1), (128, 128, 3), (128, 128, 1)]
    expected = [(128, 64, 1), (64, 64, 1), (128, 64, 1), *block[1:], *block, *block, (128, 128, 1), (256, 256, 1)]
    assert convolutions(on_meta("cspresnext50", 3), "c2") == expected


def test_yolov4_has_mish_in_the_backbone_only() -> None:
    graph = on_meta("yolov4", 80)
    found = {
        section.name: {
            type(module)
            for row in section.rows
            for module in graph.layer(row.name).modules()
            if isinstance(module, (nn.Mish, nn.LeakyReLU))
        }
        for section in graph.definition.sections
    }
    assert found == {"backbone": {nn.Mish}, "neck": {nn.LeakyReLU}, "head": set()}
