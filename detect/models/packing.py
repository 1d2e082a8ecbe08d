"""Small state dicts: packed binary weights, and float16.

In a packed state dict the tensors ``X.<name>`` of a layer's ``packed_names`` replace the ``X.weight`` of a
``PackedLayer`` (the binary weights of ``detect.papers.bdsc``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class PackedLayer(ABC):
    """Layer whose ``weight`` can be stored in a shorter form that evaluates to the same outputs.

    ``is_packed`` states whether the weight has this form, ``packed_bytes`` its size, ``ones`` the share of the weights
    above 0, 1/2 where they have no values (on PyTorch's meta device). ``pack`` returns its tensors in
    the order of ``packed_names``; ``unpack`` makes a weight of them again and raises an ``InputError`` if they do not
    fit, where ``where`` is the file and the layer, with a dot behind.
    """

    packed_names: ClassVar[tuple[str, ...]]
    """Names of the tensors of the shorter form."""
    weight: Tensor

    @property
    @abstractmethod
    def is_packed(self) -> bool: ...

    @property
    @abstractmethod
    def packed_bytes(self) -> int: ...

    @property
    @abstractmethod
    def ones(self) -> float: ...

    @abstractmethod
    def pack(self, weight: Tensor) -> tuple[Tensor, ...]: ...

    @abstractmethod
    def unpack(self, packed: tuple[Tensor, ...], where: str) -> Tensor: ...


def packed_layers(model: nn.Module) -> dict[str, PackedLayer]:
    """Return the layers whose weights are packed, by the weight's key in the module's state dict."""
    layers = model.named_modules()
    return {f"{name}.weight": m for name, m in layers if isinstance(m, PackedLayer) and m.is_packed}


def pack_state(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace each packed layer's ``X.weight`` by its shorter form, in a copy of the model's state dict."""
    layers = packed_layers(model)
    packed = {}
    for key, tensor in state.items():
        if key not in layers:
            packed[key] = tensor
            continue
        layer, prefix = layers[key], key.removesuffix("weight")
        packed |= {prefix + name: part for name, part in zip(layer.packed_names, layer.pack(tensor), strict=True)}
    return packed


def unpack_state(model: nn.Module, state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Undo ``pack_state``, in a copy; weights that are not packed stay.

    Raises:
        InputError: a shorter form does not fit the model; ``where`` is the file, for messages.
    """
    unpacked = dict(state)  # the tensors are shared, not copied
    for key, layer in packed_layers(model).items():
        prefix = key.removesuffix("weight")
        names = [prefix + name for name in layer.packed_names]
        if key in state or any(name not in state for name in names):
            continue  # missing and superfluous weights are reported together by load_weights
        unpacked[key] = layer.unpack(tuple(unpacked.pop(name) for name in names), f"{where}: {prefix}")
    return unpacked


def halve_state(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the weights to half precision, in a copy of the model's state dict, packed or not."""
    # Norms, biases and buffers (statistics, anchors) stay: few values, of any magnitude, each of which moves a whole
    # channel. So does a weight that half precision would make infinite.
    weights = {name for name, parameter in model.named_parameters() if parameter.dim() > 1}
    halves = {name: tensor.half() for name, tensor in state.items() if name in weights}
    return {**state, **{name: tensor for name, tensor in halves.items() if torch.isfinite(tensor).all()}}
