"""Models as ordinary convolutions: the same function, with weights that are known by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detect.models.blocks.conv import Conv
from detect.models.build import build_classifier
from detect.models.model import fuse_conv_bn
from detect.papers.bdsc.convolutions import DecoupledConv, MaskConv
from tests.exporting.conftest import classifier
from tests.exporting.exports import CLASSIFIER
from tests.exporting.lively import enliven
from tests.models.yamls import write_model

__all__ = ["classifier"]  # a fixture


def set_norm(norm: nn.BatchNorm2d, weight: float, bias: float, mean: float, var: float) -> None:
    """One channel's norm: weight * (x - mean) / sqrt(var) + bias."""
    norm.eps = 0.0
    for tensor, value in ((norm.weight, weight), (norm.bias, bias), (norm.running_mean, mean), (norm.running_var, var)):
        tensor.data.fill_(value)


def test_a_decoupled_convolution_by_hand() -> None:
    """One channel everywhere. Projection 2, then norm -3 * (x - 1) / 2 + 5 = -1.5 * x + 6.5: weight -3, bias 6.5.

    Magnitudes of Q: eight times 0.25, and 1: alpha = 3 / 9 = 1/3. The norm behind,
    -6 * (x - 0.5) / 4 + 0.25 = -1.5 * x + 1, makes -0.5 * sign(Q) of it, and a bias of 1.
    """
    layer = Conv(1, 1, kernel_size=3).eval()
    layer.conv = DecoupledConv(layer.conv, p=1, binary=True).eval()
    set_norm(layer.conv.norm, -3, 5, 1, 4)
    set_norm(layer.norm, -6, 0.25, 0.5, 16)
    signs = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])
    q = 0.25 * signs
    q[1, 1] = 1
    layer.conv.project.weight.data.fill_(2)
    layer.conv.spatial.weight.data.copy_(q)
    x = torch.rand(2, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    found = fuse_conv_bn(layer)
    assert found.conv.project.weight.item() == -3
    assert found.conv.project.bias.item() == 6.5
    torch.testing.assert_close(found.conv.spatial.weight[0, 0], -0.5 * signs, rtol=0, atol=0)
    assert found.conv.spatial.bias.item() == 1
    with torch.no_grad():
        torch.testing.assert_close(found(x), layer(x), rtol=1e-5, atol=1e-6)
    assert torch.equal(layer.conv.spatial.weight[0, 0], q), "the model itself stays"


WORDS = ("bdsc, p: 0.6", "bdsc, p: 2, norm: false", "bdsc-float, p: 1", "depthwise", "standard")


@pytest.mark.parametrize("words", WORDS)
def test_the_same_function(tmp_path, words) -> None:
    """In float64 but for the rounding of the weights to float32, at the edges too, where zeros are padded."""
    torch.manual_seed(0)
    text = CLASSIFIER.replace("{kind: bdsc, p: 0.6}", f"{{kind: {words}}}")
    model = build_classifier(str(write_model(tmp_path, text)), num_classes=3).train()
    enliven(model, negative=0.3)
    found, images = fuse_conv_bn(model.eval()), torch.rand(2, 3, 12, 8, dtype=torch.float64)
    assert not [layer for layer in found.modules() if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        expected = model.double()(images)
        assert (found.double()(images) - expected).abs().max() < 1e-6 * expected.abs().max()


def test_binary_weights_keep_one_magnitude_for_each_output(classifier) -> None:
    masks = [layer for layer in fuse_conv_bn(classifier.model).modules() if isinstance(layer, MaskConv)]
    assert len(masks) == 2
    for mask in masks:
        magnitudes = mask.weight.detach().abs().flatten(1)
        assert (magnitudes > 0).all()
        assert torch.equal(magnitudes, magnitudes[:, :1].expand_as(magnitudes))
