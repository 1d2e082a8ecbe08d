from __future__ import annotations

import torch
from torch import nn

from detect.models.packing import halve_state


def test_weights_in_half_precision_stay_finite() -> None:
    """float16 ends at 65504; vectors (biases, norms) and buffers keep their precision."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1))
    model.register_buffer("anchors_px", torch.ones(1, 2))
    with torch.no_grad():
        model[2].weight.fill_(70000)
    state = model.state_dict()
    halved = halve_state(model, state)
    assert [name for name in state if halved[name].dtype == torch.float16] == ["0.weight"]
    assert all(tensor.dtype != torch.float16 for tensor in state.values())
    assert halved["2.weight"].item() == 70000
