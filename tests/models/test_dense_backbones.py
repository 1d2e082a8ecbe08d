"""The densely connected backbones: their figures, and torchvision's DenseNet as a reference."""

from __future__ import annotations

import functools

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detect.errors import InputError
from detect.models.build import build_graph
from detect.models.graph import Graph
from tests.models.thin import thin


@functools.cache
def count(name: str, num_classes: int, size: int) -> tuple[int, int, int]:
    """Weights of convolutions and of the classifier, trainable parameters, multiply-adds."""
    with torch.device("meta"):
        graph = build_graph(name, num_classes).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            graph(torch.empty(1, 3, size, size))
    layers = [layer for layer in graph.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    weights = sum(layer.weight.numel() for layer in layers)
    return weights, sum(p.numel() for p in graph.parameters()), counter.get_total_flops() // 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "weights", "macs"),
    thin(
        [
            ("peleenet", 2_791_520, 507_757_568),
            ("csppeleenet+gamma=0.25", 3_215_776, 505_750_528),
            ("csppeleenet", 2_843_488, 446_141_440),
            ("csppeleenet+gamma=0.75", 2_514_336, 391_750_656),
            ("csppeleenet-fusion-first+gamma=0.25", 2_123_872, 430_486_528),
            ("csppeleenet-fusion-first", 1_951_840, 377_500_672),
            ("csppeleenet-fusion-first+gamma=0.75", 1_779_808, 324_514_816),
            ("csppeleenet-fusion-last+gamma=0.25", 2_378_848, 451_560_448),
            ("csppeleenet-fusion-last", 2_009_184, 400_180_224),
            ("csppeleenet-fusion-last+gamma=0.75", 1_682_528, 353_616_896),
            # All four stages divided, one topology for all fusions.
            ("peleenet+fusion=last+gamma=0.5", 2_003_808, 383_321_088),
            ("speleenet", 2_391_136, 451_560_448),
            ("peleenext", 2_506_976, 417_779_456),
            # Each of 21 layers adds 32 * 16 * 2 weights, which are used once an image.
            ("peleenet+se=true", 2_791_520 + 21 * 1024, 507_757_568 + 21 * 1024),
            ("csppeleenet+se=true+activation=silu", 2_843_488 + 21 * 1024, 446_141_440 + 21 * 1024),
        ],
        5,
    ),
)
def test_peleenets(name: str, weights: int, macs: int) -> None:
    assert count(name, 1000, 224)[::2] == (weights, macs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "millions", "bflops"),
    [("densenet201-elastic", 19.48, 8.77), ("cspdensenet201-elastic", 20.17, 7.13)],
)
def test_elastic_meets_the_paper_within_5_percent(name: str, millions: float, bflops: float) -> None:
    """CSPNet, Table 3."""
    weights, _, macs = count(name, 1000, 224)
    assert weights / 1e6 == pytest.approx(millions, rel=0.05)
    assert 2 * macs / 1e9 == pytest.approx(bflops, rel=0.05)


@pytest.mark.parametrize(
    ("name", "num_classes", "parameters", "macs"),
    thin(
        [
            ("densenet-bc-100-12", 100, 800_032, 287_960_472),
            ("densenet-bc-190-40", 100, 25_821_620, 9_302_142_840),
            ("densenet-bc-190-40", 10, 25_624_430, 9_301_945_740),
            ("densenet-bc-250-24", 10, 15_324_406, 5_418_785_724),
            ("densenet-bc-40-60", 10, 4_261_690, 1_795_836_360),
            # Norms have 16 + 28 + ... + 148, 160 + ... and 304 + ... channels in the layers, 160 and 304 in the
            # transitions and 448 at the end: 9048, two parameters each; convolutions 997,136, classifier 448 * 10 + 10.
            ("densenet40", 10, 997_136 + 2 * 9048 + 4490, 264_812_928),
        ],
        5,
    ),
)
def test_cifar(name: str, num_classes: int, parameters: int, macs: int) -> None:
    assert count(name, num_classes, 32)[1:] == (parameters, macs)


@pytest.mark.parametrize(("num_classes", "size_mib"), [(10, 3.98), (100, 4.13)])
def test_file_size_of_densenet40(num_classes: int, size_mib: float) -> None:
    """BDSC (AAAI 2018), Table 5: 4 bytes per weight, bias and value of a norm (4 per channel), and a little more."""
    weights, parameters, _ = count("densenet40", num_classes, 32)
    norm_parameters = parameters - weights - num_classes
    stored = 4 * (weights + num_classes + 2 * norm_parameters)
    assert stored / 2**20 == pytest.approx(size_mib, abs=0.025)


# ----------------------------------------------------------------------------- torchvision as a reference


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state in order, without the counters of the norms."""
    return {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize("name", thin(["densenet121", "densenet161", "densenet169", "densenet201"]))
def test_same_tensors_in_the_same_order_as_torchvision(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = build_graph(name, 1000), getattr(torchvision.models, name)(weights=None)
    assert [value.shape for value in tensors(ours).values()] == [value.shape for value in tensors(theirs).values()]


@pytest.mark.slow
def test_computes_what_torchvision_computes() -> None:
    """After renaming the tensors, with statistics that differ from channel to channel."""
    torch.manual_seed(0)
    theirs = torchvision.models.densenet121(weights=None, num_classes=10).eval()
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    ours = build_graph("densenet121", 10).eval()
    names = zip(tensors(ours), tensors(theirs).values(), strict=True)
    ours.load_state_dict({**ours.state_dict(), **dict(names)})
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------ shapes and words


def channels(graph: Graph) -> list[int]:
    return [graph.shapes[name].channels for name in ("c2", "c3", "c4", "c5")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    thin(
        [
            ("peleenet", [128, 256, 512, 704]),
            ("csppeleenet", [128, 256, 512, 704]),
            ("csppeleenet-fusion-first", [128, 256, 512, 704]),
            ("csppeleenet-fusion-last+gamma=0.75", [128, 256, 512, 704]),
            ("densenet121", [128, 256, 512, 1024]),
            # Only the second transition compresses, behind the pool: 64 + 6 * 32, 128 + 12 * 32, 256 + 24 * 32.
            ("cspdensenet121", [256, 512, 1024, 1024]),
            ("cspdensenet121+compressed_by=first", [128, 256, 512, 1024]),
            ("densenet201-elastic", [192, 416, 848, 1808]),
            ("cspdensenet201-elastic", [192, 416, 848, 1808]),
        ],
        6,
    ),
)
def test_levels(name: str, expected: list[int]) -> None:
    with torch.device("meta"):
        graph = build_graph(name, 2)
    assert channels(graph) == expected
    assert [graph.shapes[level].reduction for level in ("c2", "c3", "c4", "c5")] == [4, 8, 16, 32]


@pytest.mark.parametrize("name", ["densenet40", "densenet-bc-100-12"])
def test_cifar_halves_twice(name: str) -> None:
    with torch.device("meta"):
        assert build_graph(name, 10).shapes["c5"].reduction == 4


@pytest.mark.parametrize(
    "name",
    thin(
        [
            "csppeleenet-fusion-first",
            "csppeleenet-fusion-last",
            "csppeleenet+se=true",
            "speleenet",
            "peleenext",
            "cspdensenet121+depth=0.2",
            "cspdensenet201-elastic+depth=0.2",
            "densenet-bc-100-12+fusion=csp+depth=0.2",
        ],
        0,
        5,
        7,
    ),
)
def test_space_to_depth_everywhere(name: str) -> None:
    """In spd there is no stride and no pool, and every parameter still learns."""
    torch.manual_seed(0)
    graph = build_graph(f"{name}+spd+width=0.25", 3).train()
    assert [m for m in graph.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)] == []
    assert [m for m in graph.modules() if isinstance(m, (nn.MaxPool2d, nn.AvgPool2d))] == []
    graph(torch.rand(2, 3, 64, 96)).square().sum().backward()
    assert [key for key, p in graph.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_unknown_fusion() -> None:
    with pytest.raises(InputError, match=r"backbone\.c2: args: fusion: unknown 'cps'.* did you mean 'csp'"):
        build_graph("densenet121+fusion=cps", 2)
