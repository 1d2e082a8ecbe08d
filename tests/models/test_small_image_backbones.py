"""Classifiers for small images (ResNet-SPD, CIFAR's ResNets, Wide ResNets, ResNeXts and VGGs): figures and words."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detect.errors import InputError
from detect.models.blocks.downsample import Pool
from detect.models.build import build_graph
from detect.models.catalog import find_definition
from detect.models.graph import Graph
from tests.models.thin import thin


def on_meta(name: str, num_classes: int) -> Graph:
    """A graph that has shapes but no values."""
    with torch.device("meta"):
        return build_graph(name, num_classes)


def strided(graph: Graph) -> list[nn.Conv2d]:
    """The convolutions with a stride."""
    return [m for m in graph.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_classes", "size", "parameters", "macs", "strides"),
    thin(
        [
            # The baselines in the published code of SPD-Conv: a stride in 3 stages, in the path and in the shortcut.
            ("resnet18-small", 200, 64, 11_271_432, 2_221_772_800, 6),
            ("resnet50-small", 200, 64, 23_910_152, 5_191_647_232, 6),
            ("resnet18-small", 10, 32, 11_173_962, 555_422_720, 6),
            ("resnet50-small", 10, 32, 23_520_842, 1_297_829_888, 6),
            # The same parameters, one stride more, in the stem: a quarter of the arithmetic behind it, where the stem's
            # 27 * 64 multiply-adds are one for each of 32 x 32 cells in place of 64 x 64, and the classifier's stay.
            ("resnet18-strided", 200, 64, 11_271_432, (2_221_772_800 - 102_400) // 4 + 102_400, 7),
            ("resnet50-strided", 200, 64, 23_910_152, (5_191_647_232 - 409_600) // 4 + 409_600, 7),
            # The published code's ResNet-SPD
            ("resnet18-spd-official", 200, 64, 20_565_576, 1_064_144_896, 3),
            ("resnet50-spd-official", 200, 64, 28_043_336, 1_787_969_536, 3),
            ("resnet18-spd-official", 10, 32, 20_468_106, 266_015_744, 3),
            ("resnet50-spd-official", 10, 32, 27_654_026, 446_910_464, 3),
            # Readings of Table 3
            ("resnet18-spd", 200, 64, 14_374_088, 674_074_624, 0),
            ("resnet50-spd", 200, 64, 29_423_944, 1_429_356_544, 0),
            ("resnet18-spd", 10, 32, 14_276_618, 168_498_176, 0),
            ("resnet50-spd", 10, 32, 29_034_634, 357_257_216, 0),
            ("resnet18-spd+spd_kernel_size=1", 200, 64, 11_621_576, 573_411_328, 0),
            ("resnet50-spd+spd_kernel_size=3", 200, 64, 73_464_136, 3_039_969_280, 0),
            ("resnet18-spd+spd_kernel_size=1", 10, 32, 11_524_106, 143_332_352, 0),
            ("resnet50-spd+spd_kernel_size=3", 10, 32, 73_074_826, 759_910_400, 0),
            ("resnet18-spd+spd_form=absorb", 200, 64, 16_437_576, 749_572_096, 0),
            ("resnet50-spd+spd_form=absorb", 200, 64, 34_237_256, 1_605_517_312, 0),
            ("resnet18-spd+spd_form=absorb", 10, 32, 16_340_106, 187_372_544, 0),
            ("resnet50-spd+spd_form=absorb", 10, 32, 33_847_946, 401_297_408, 0),
            # CIFAR's ResNets with bottlenecks, as the paper on Temporally Resolution Decrement counts them
            ("resnet56-bottleneck", 100, 32, 614_452, 87_237_632, 4),
            ("resnet110-bottleneck", 100, 32, 1_170_868, 167_453_696, 4),
            ("resnet110-bottleneck", 200, 64, 1_196_568, 669_763_584, 4),
            # Wide ResNets
            ("wrn-28-10", 10, 32, 36_479_194, 5_243_328_768, 4),
            ("wrn-28-10", 100, 32, 36_536_884, 5_243_386_368, 4),
            ("wrn-40-4", 10, 32, 8_949_210, 1_298_582_016, 4),
            # A VGG's convolutions keep the size; its pools are no convolutions.
            ("vgg19-bn", 100, 32, 20_086_692, 398_182_400, 0),
        ],
        2,
        8,
        12,
        16,
        20,
        22,
        27,
        28,
    ),
)
def test_counts(name: str, num_classes: int, size: int, parameters: int, macs: int, strides: int) -> None:
    graph = on_meta(name, num_classes).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        graph(torch.empty(1, 3, size, size, device="meta"))
    assert sum(p.numel() for p in graph.parameters()) == parameters
    assert counter.get_total_flops() == 2 * macs
    assert len(strided(graph)) == strides


@pytest.mark.parametrize(
    ("name", "millions"),
    thin(
        [
            ("resnext29-8x64d", 34.4),
            ("resnext29-16x64d", 68.1),
            ("wrn-40-4", 8.9),
            ("wrn-16-8", 11.0),
            ("wrn-22-8", 17.2),
            ("wrn-28-10", 36.5),
            ("wrn-28-10+widen=12", 52.5),
            ("densenet-100-12", 7.0),
            ("densenet-100-24", 27.2),
            ("resnet20", 0.27),
            ("resnet32", 0.46),
            ("resnet56", 0.85),
            ("resnet110", 1.7),
        ],
        0,
        3,
        7,
        9,
    ),
)
def test_parameters_of_the_papers(name: str, millions: float) -> None:
    """With 10 classes; ResNeXt, Table 7; Wide ResNet, Table 4; DenseNet, Table 2; ResNet, Table 6."""
    assert sum(p.numel() for p in on_meta(name, 10).parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(
    ("name", "num_classes", "size_mib"),
    thin(
        [
            ("resnet32", 100, 1.833),
            ("resnet32+width=2", 100, 7.180),
            ("resnet32+width=3", 100, 16.063),
            ("resnet32+width=4", 100, 28.481),
            ("resnet74+width=2", 100, 17.564),
            ("resnet74+width=2", 10, 17.520),
        ],
        0,
        1,
    ),
)
def test_sizes_of_the_bdsc_paper(name: str, num_classes: int, size_mib: float) -> None:
    """Tables 1 and 4, standard convolutions: 4 bytes for each weight, bias, and value of a norm (4 a channel).

    The files that the paper measured have about 0.02 MiB more than that.
    """
    graph = on_meta(name, num_classes)
    statistics = sum(2 * m.num_features for m in graph.modules() if isinstance(m, nn.BatchNorm2d))
    stored = 4 * (sum(p.numel() for p in graph.parameters()) + statistics)
    assert stored / 2**20 + 0.02 == pytest.approx(size_mib, abs=0.0006)


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_resnet_spd_is_one_word_from_its_baseline(depth: int) -> None:
    (said, _), (spd, _) = (find_definition(f"resnet{depth}{form}").sections for form in ("-strided+spd", "-spd"))
    assert said == spd
    baseline, _ = find_definition(f"resnet{depth}-strided").sections
    assert said.rows == baseline.rows
    assert said.defaults == {**baseline.defaults, "downsample": "spd"}


@pytest.mark.parametrize(
    ("name", "reduction"),
    thin(
        [
            ("resnet18-small", 8),
            ("resnet18-strided", 16),
            ("resnet18-spd", 16),
            ("resnet50-spd-official", 16),
            ("resnet20", 4),
            ("resnet56-bottleneck", 4),
            ("wrn-16-4", 4),
            ("resnext29-32x4d", 4),
            ("vgg19-bn", 16),
        ],
        0,
        3,
        4,
        7,
        8,
    ),
)
def test_reduction(name: str, reduction: int) -> None:
    assert on_meta(name, 10).max_reduction == reduction


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    thin(
        [
            "resnet18-small",
            "resnet50-strided",
            "resnet50-strided+spd_form=absorb",
            "resnet50-strided+spd_form=absorb+fusion=csp",
            "resnet20",
            "resnet56-bottleneck+fusion=csp",
            "wrn-16-4",
            "wrn-16-4+fusion=csp+gamma=0.25",
            "wrn-16-4+fusion=first",
            "wrn-16-4+fusion=last",
            "preresnet50+fusion=csp",
            "resnext29-32x4d",
            "vgg19-bn",
        ],
        0,
        3,
        5,
        7,
        10,
        11,
        12,
    ),
)
def test_space_to_depth_everywhere(name: str) -> None:
    """In spd there is no stride and no pool but the global one, and every parameter learns."""
    torch.manual_seed(0)
    graph = build_graph(f"{name}+spd+width=0.25+depth=0.1", 3)
    assert strided(graph) == []
    assert not [m for m in graph.modules() if isinstance(m, (nn.MaxPool2d, nn.AvgPool2d))]
    assert not [m for m in graph.modules() if isinstance(m, Pool) and m.conv is None]
    graph(torch.rand(2, 3, 64, 96)).square().sum().backward()
    assert [key for key, p in graph.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", thin(["wrn-16-4", "preresnet18", "resnet56-bottleneck"], 0))
def test_partial_stages_learn_less_the_more_passes_by(name: str) -> None:
    sizes = [
        sum(p.numel() for p in on_meta(name + words, 10).parameters())
        for words in ("", "+fusion=csp+gamma=0.25", "+fusion=csp", "+fusion=csp+gamma=0.75")
    ]
    assert sizes == sorted(set(sizes), reverse=True)


def test_widen_leaves_the_stem() -> None:
    """wrn-16-4, 10 classes: the model's width does not."""
    words = ("", "+widen=2", "+width=2", "+widen=2+width=2")
    found = [[on_meta(f"wrn-16-4{w}", 10).shapes[row].channels for row in ("stem", "stage1", "c5")] for w in words]
    assert found == [[16, 64, 256], [16, 32, 128], [32, 128, 512], [32, 64, 256]]


@pytest.mark.parametrize("size", [16, 32])
def test_vgg_runs_where_five_pools_leave_nothing(size: int) -> None:
    """At 32 px the last map is 2 x 2, and the maximum over it is the published 2x2 pool; at 16 px it is one cell."""
    torch.manual_seed(0)
    graph = build_graph("vgg19-bn+width=0.25", 5).eval()
    seen = []
    graph.layer("c5").register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        logits = graph(x)
        last = nn.functional.max_pool2d(seen[0], size // 16).flatten(1)
        torch.testing.assert_close(logits, graph.last.linear(last))
    assert logits.shape == (2, 5)


def test_the_convolutions_of_vgg_have_biases() -> None:
    convs = [m for m in on_meta("vgg19-bn", 10).modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 16
    assert all(conv.bias is not None for conv in convs)
    assert all(m.bias is None for m in on_meta("vgg19-bn+bias=false", 10).modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18-strided+spd_form=absorb", r"spd_form: belongs to downsample spd, found absorb with stride$"),
        (
            "resnet18-strided+spd_kernel_size=1",
            r"spd_kernel_size: belongs to downsample spd with spd_form conv, found 1 with stride$",
        ),
        (
            "resnet18-spd-official+spd_kernel_size=1",
            r"spd_kernel_size: belongs to downsample spd with spd_form conv, found 1 with inside$",
        ),
        ("resnet18-spd+spd_kernel_size=2", r"kernel_size: must be odd where the stride is 1, found 2$"),
        ("resnet18-spd+spd_form=within", r"spd_form: unknown 'within'; allowed: absorb, conv, inside$"),
        ("vgg19-bn+fusion=csp", r"unknown option 'fusion'"),
        ("wrn-16-4+widen=0", r"widen: must be a whole number above 0, found 0$"),
    ],
)
def test_words_without_effect_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        on_meta(name, 10)
