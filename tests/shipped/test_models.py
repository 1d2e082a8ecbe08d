"""Every shipped model, and every backbone as a classifier: runs, learns everywhere, does not mix images, exports.

The fast tests have a quarter of the width and one or two blocks a stage; the slow ones the model as it is shipped.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from detect.models.build import build_graph
from detect.models.catalog import find_definition, shipped_models, shipped_parts
from detect.models.graph import Graph

NAMES = [*shipped_models(), *shipped_parts("backbone")]
SMALL = "+width=0.25+depth=0.1"
FAST = {
    *("csppeleenet-efm-sam", "csppeleenet-cem-sam", "csppeleenet-prn-swish", "cspdensenet-reference-b-prn", "yolov4"),
    *("yolov3-tiny-prn", "yolov5n-spd", "densenet201-elastic", "csppeleenet-fusion-first", "peleenext", "preresnet18"),
    *("resnet18-spd", "resnet20-bottleneck", "cspresnet10", "resnext29-8x64d", "vgg11-bn", "wrn-10-1", "yolox-nano"),
    "resnet20-exits",
}
"""One of each family, together with every block."""
SMALL_ONES = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


def images(batch: int, graph: Graph, seed: int = 0) -> Tensor:
    """Images of 3 x 5 cells of the coarsest level: odd, and not square."""
    side = graph.max_reduction
    return torch.rand(batch, 3, 3 * side, 5 * side, generator=torch.Generator().manual_seed(seed))


def outputs(graph: Graph, x: Tensor) -> list[Tensor]:
    """The levels of a detector, or the logits of a classifier."""
    found = graph(x)
    return found if isinstance(found, list) else [found]


def built(name: str) -> Graph:
    """The model with weights and norm statistics that answer to the input, as trained ones do."""
    torch.manual_seed(0)
    graph = build_graph(name, num_classes=3).train()
    for layer in graph.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.0)
            nn.init.normal_(layer.bias, 0.0, 0.1)
            layer.momentum = 1.0  # the statistics of one batch
    with torch.no_grad():
        graph(images(2, graph, seed=1))
    return graph


def assert_learns_everywhere(graph: Graph) -> None:
    """Every parameter gets a finite gradient, and none but those behind a maximum may get nothing but zeros."""
    graph.train().zero_grad(set_to_none=True)
    sum(y.square().mean() for y in outputs(graph, images(2, graph))).backward()
    for key, parameter in graph.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.any(), key


def assert_does_not_mix_images(graph: Graph) -> None:
    """What comes out for an image is what comes out for it alone."""
    graph.eval().double()
    x = images(3, graph).double()
    with torch.no_grad():
        together, alone = outputs(graph, x), outputs(graph, x[1:2])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:2], b, rtol=1e-9, atol=1e-9)
    graph.float()


def assert_exports(graph: Graph, path: Path) -> None:
    """ONNX Runtime gives what PyTorch gives, at the size of the export."""
    graph.eval().float()
    x = images(1, graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(graph, (x,), dynamo=True, input_names=["images"], verbose=False)
    assert program is not None
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = outputs(graph, x)
    for a, b in zip(session.run(None, {"images": x.numpy()}), expected, strict=True):
        assert a.shape == tuple(b.shape)
        # A hundred untrained layers enlarge rounding; another graph would be off by the whole scale.
        assert np.abs(a - b.numpy()).max() < 0.01 * b.abs().max()


def test_the_fast_ones_have_every_block() -> None:
    blocks = {name: {row.module for row in find_definition(name).rows} for name in NAMES}
    assert set().union(*blocks.values()) == set().union(*(blocks[name] for name in FAST))


@pytest.mark.parametrize("name", SMALL_ONES)
def test_small(name: str) -> None:
    graph = built(name + SMALL)
    assert_learns_everywhere(graph)
    assert_does_not_mix_images(graph)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["densenet201-elastic", "cspresnext50+panet-spp+spd", "csppeleenet+efm-sam+spd"])
def test_small_exports(name: str, tmp_path: Path) -> None:
    assert_exports(built(name + SMALL), tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_as_shipped(name: str, tmp_path: Path) -> None:
    graph = built(name)
    assert_learns_everywhere(graph)
    assert_does_not_mix_images(graph)
    assert_exports(graph, tmp_path / "model.onnx")
