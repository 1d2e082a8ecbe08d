from __future__ import annotations

import torch
from torch import nn

from detect.models.blocks.attention import SqueezeExcite

X = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_zero_weights_halve_the_map() -> None:
    """Sigmoid of 0 is one half."""
    block = SqueezeExcite(4, 2, "relu").double()
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(block(X), X / 2, rtol=0, atol=0)


def test_weights_by_the_means_of_the_channels() -> None:
    """Means 1 and 3; squeezed relu(2*1 - 1*3 + 2) = 1; logits 1 * [ln 3, 0] + [0, -ln 3]: weights 3/4 and 1/4."""
    block = SqueezeExcite(2, 1, "relu").double()
    log3 = torch.tensor(3.0, dtype=torch.float64).log()
    with torch.no_grad():
        block.weigh[0].weight.copy_(torch.tensor([2.0, -1.0]).view(1, 2, 1, 1))
        block.weigh[0].bias.fill_(2.0)
        block.weigh[2].weight.copy_(torch.stack([log3, 0 * log3]).view(2, 1, 1, 1))
        block.weigh[2].bias.copy_(torch.stack([0 * log3, -log3]))
    x = torch.tensor([[[[0.0, 2.0]], [[2.0, 4.0]]]], dtype=torch.float64)
    torch.testing.assert_close(block(x), torch.tensor([[[[0.0, 1.5]], [[0.5, 1.0]]]], dtype=torch.float64))


def test_parameters() -> None:
    """4 * 2 + 2 and 2 * 4 + 4."""
    assert sum(p.numel() for p in SqueezeExcite(4, 2, "silu").parameters()) == 10 + 12
