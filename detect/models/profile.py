"""What a model costs: parameters, multiply-adds, activation memory, row by row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detect.errors import InputError
from detect.models.blocks.conv import Conv
from detect.models.build import build_model
from detect.models.detector import DetectionModel
from detect.models.graph import Graph

BYTES_PER_VALUE = 4


@dataclass(frozen=True)
class RowProfile:
    """The cost of one row, for one image.

    Args:
        name: of the row.
        module: its class.
        inputs: names of the rows it reads.
        channels: of its output.
        reduction: input pixels per cell of its output.
        parameters: learnt values.
        macs: multiply-adds of convolutions and linear layers; norms and activations do not count, norms are not fused.
        activation_bytes: float32 outputs of all layers inside it, which training keeps for the backward pass.
    """

    name: str
    module: str
    inputs: tuple[str, ...]
    channels: int
    reduction: int
    parameters: int
    macs: int
    activation_bytes: int


@dataclass(frozen=True)
class ModelProfile:
    """The cost of a model, for one image.

    Args:
        name: of the model.
        image_hw: input height and width.
        num_classes: K.
        rows: in execution order.
    """

    name: str
    image_hw: tuple[int, int]
    num_classes: int
    rows: tuple[RowProfile, ...]

    @property
    def parameters(self) -> int:
        """Learnt values."""
        return sum(row.parameters for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return sum(row.macs for row in self.rows)

    @property
    def gflops(self) -> float:
        """2 * multiply-adds / 1e9."""
        return 2 * self.macs / 1e9

    @property
    def activation_bytes(self) -> int:
        """float32 outputs of all layers."""
        return sum(row.activation_bytes for row in self.rows)

    def to_plain(self) -> dict[str, Any]:
        """The profile for JSON."""
        return {
            "name": self.name,
            "image_size": list(self.image_hw),
            "num_classes": self.num_classes,
            "parameters": self.parameters,
            "macs": self.macs,
            "gflops": self.gflops,
            "activation_bytes": self.activation_bytes,
            "layers": [asdict(row) for row in self.rows],
        }

    def table(self) -> str:
        """The graph as text, a line for each row and one for the sum."""
        head = ("name", "module", "from", "channels", "reduction", "parameters", "MACs (M)", "activations (MB)")
        lines = [head] + [
            (
                row.name,
                row.module,
                ", ".join(row.inputs),
                str(row.channels),
                str(row.reduction),
                f"{row.parameters:,}",
                f"{row.macs / 1e6:,.1f}",
                f"{row.activation_bytes / 1e6:.2f}",
            )
            for row in self.rows
        ]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = [_align(line, widths) for line in lines]
        total = (
            f"{self.name}, {self.image_hw[0]} x {self.image_hw[1]} px, {self.num_classes} classes: "
            f"{self.parameters:,} parameters, {self.macs / 1e9:.3f} G multiply-adds ({self.gflops:.2f} GFLOPs), "
            f"{self.activation_bytes / 1e6:.1f} MB activations"
        )
        return "\n".join([text[0], "-" * len(text[0]), *text[1:], "", total])


def profile_model(name: str, image_size: int, num_classes: int) -> ModelProfile:
    """Profile a model by name or file, without computing anything (on PyTorch's meta device).

    Args:
        name: shipped name or YAML file.
        image_size: side of the square input in pixels.
        num_classes: K.

    Raises:
        InputError: no such model, or the size does not suit it.
    """
    with torch.device("meta"):
        model = build_model(name, num_classes)
        if image_size % model.max_reduction:
            raise InputError(f"image size {image_size}: must be a multiple of {model.max_reduction} for {name}")
        rows = _profile_rows(model, torch.empty(1, 3, image_size, image_size))
    return ModelProfile(model.definition.name, (image_size, image_size), num_classes, rows)


def _profile_rows(model: DetectionModel, image: Tensor) -> tuple[RowProfile, ...]:
    graph: Graph = model.graph.eval()
    values: dict[str, Any] = {"image": image}
    rows = []
    for row in graph.definition.rows:
        layer, shape = graph.layers[row.name], graph.shapes[row.name]
        outputs: list[int] = []
        hooks = [m.register_forward_hook(_record_bytes(outputs)) for m in _observable(layer)]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            values[row.name] = layer(*(values[name] for name in row.inputs))
        for hook in hooks:
            hook.remove()
        rows.append(
            RowProfile(
                name=row.name,
                module=row.module,
                inputs=row.inputs,
                channels=shape.channels,
                reduction=shape.reduction,
                parameters=sum(p.numel() for p in layer.parameters()),
                macs=counter.get_total_flops() // 2,
                activation_bytes=sum(outputs),
            )
        )
    return tuple(rows)


def _observable(layer: nn.Module) -> list[nn.Module]:
    """Its innermost modules, less the convolutions of ``Conv``: others may run for them; the norm sees the output."""
    behind_norms = {id(m.conv) for m in layer.modules() if isinstance(m, Conv)}
    return [m for m in layer.modules() if not list(m.children()) and id(m) not in behind_norms]


def _record_bytes(outputs: list[int]) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        maps = [*inputs, output] if isinstance(module, nn.BatchNorm2d) else [output]
        outputs.extend(m.numel() * BYTES_PER_VALUE for m in maps)

    return hook


def _align(cells: tuple[str, ...], widths: list[int]) -> str:
    aligned = [
        cell.ljust(width) if i < 3 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(aligned).rstrip()
