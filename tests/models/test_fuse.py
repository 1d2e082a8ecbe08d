"""Models as ordinary convolutions."""

from __future__ import annotations

import torch
from torch import nn

from detect.models.model import fuse_conv_bn
from tests.exporting.conftest import checkpoint

__all__ = ["checkpoint"]  # a fixture


def test_a_detector(checkpoint) -> None:
    """Its norms are gone, and the checkpoint's own are still there."""
    found = fuse_conv_bn(checkpoint.detector)
    assert not [layer for layer in found.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [layer for layer in checkpoint.model.modules() if isinstance(layer, nn.BatchNorm2d)]
    images = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = checkpoint.model.decode(checkpoint.model(images))
        torch.testing.assert_close(found.decode(found(images)), expected, rtol=1e-3, atol=0.05)
