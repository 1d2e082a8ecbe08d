"""Small state dicts: weights that a layer knows to pack, others as float16.

A layer whose weight has a shorter form (``PackedLayer``; the binary weights of ``detect.papers.bdsc``) has in a packed
state dict, in the place of ``X.weight``, the tensors ``X.<name>`` of its ``packed_names``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class PackedLayer(ABC):
    """A layer whose ``weight`` is stored in a shorter form, from which evaluation computes the same."""

    packed_names: ClassVar[tuple[str, ...]]
    """Names of the tensors of the shorter form."""
    weight: Tensor

    @property
    @abstractmethod
    def is_packed(self) -> bool:
        """Whether this layer's weight has the shorter form at all."""

    @property
    @abstractmethod
    def packed_bytes(self) -> int:
        """Bytes of the shorter form."""

    @abstractmethod
    def pack(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The shorter form of a weight, in the order of ``packed_names``."""

    @abstractmethod
    def unpack(self, packed: tuple[Tensor, ...], where: str) -> Tensor:
        """A weight whose shorter form is ``packed``.

        Args:
            packed: in the order of ``packed_names``.
            where: file and layer with a dot behind, for messages.

        Raises:
            InputError: the tensors are not what the layer needs.
        """


def packed_layers(model: nn.Module) -> dict[str, PackedLayer]:
    """The layers whose weights are packed, by the key of the weight in the module's state dict."""
    layers = model.named_modules()
    return {f"{name}.weight": m for name, m in layers if isinstance(m, PackedLayer) and m.is_packed}


def pack_state(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the shorter forms of weights.

    Args:
        model: says which weights have one.
        state: its state dict; is not changed.

    Returns:
        The rest of it, and the tensors of the shorter form in the place of each ``X.weight``.
    """
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
    """A state dict with ``X.weight`` in the place of its shorter form; what is not packed stays as it is.

    Args:
        model: says which weights have a shorter form.
        state: as ``pack_state`` gave it, or never packed; is not changed.
        where: the file, for messages.

    Raises:
        InputError: a shorter form is not what the model needs.
    """
    unpacked = dict(state)
    for key, layer in packed_layers(model).items():
        prefix = key.removesuffix("weight")
        names = [prefix + name for name in layer.packed_names]
        if key in state or any(name not in state for name in names):
            continue  # what is missing or too much is told with all other weights that do not fit
        unpacked[key] = layer.unpack(tuple(unpacked.pop(name) for name in names), f"{where}: {prefix}")
    return unpacked


def halve_state(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the weights in half precision.

    What is one-dimensional (norms, biases) and buffers (the norms' statistics, anchors) stay as they are: few values,
    of any magnitude, each of which moves a whole channel. So does a weight that half precision would make infinite.

    Args:
        model: says what is a weight.
        state: its state dict, packed or not; is not changed.
    """
    weights = {name for name, parameter in model.named_parameters() if parameter.dim() > 1}
    halves = {name: tensor.half() for name, tensor in state.items() if name in weights}
    return {**state, **{name: tensor for name, tensor in halves.items() if torch.isfinite(tensor).all()}}
