"""Cost of a model: parameters, multiply-adds, activation memory, memory traffic, bytes; in sum, by row and by layer.

Papers count differently: each count has one name here, and its docstring names the paper.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detect.analysis.layers import LayerProfile, kept_bytes, record_layers
from detect.errors import InputError
from detect.models.build import empty_model
from detect.models.catalog import find_definition
from detect.models.checkpoint import Checkpoint, checkpoint_archive, load_checkpoint
from detect.models.class_heads import Classify
from detect.models.definition import ModelDefinition, Row
from detect.models.graph import Graph, GraphTransform
from detect.models.heads import DetectionHead
from detect.models.packing import packed_layers
from detect.models.registry import find_block

MEASURES = (
    "parameters",
    "weights",
    "stored_values",
    "size_bytes",
    "file_bytes",
    "macs",
    "gflops",
    "bflops",
    "bdsc_macs",
    "activation_bytes",
    "cio",
)


@dataclass(frozen=True)
class RowProfile:
    """Cost of one row, for one image.

    Args:
        name: of the row.
        module: its class.
        inputs: names of the rows it reads.
        channels: of its output.
        reduction: input pixels per cell of its output.
        parameters: number of trainable values.
        weights: those of convolutions and linear layers without biases; the CSPNet paper's count for classifiers.
        stored_values: trainable values and the norms' running statistics, as Darknet stores them; the CSPNet paper's
            count for detectors, the size of the weights file.
        size_bytes: ``count_bytes``, the BDSC paper's model size.
        activation_bytes: maps (float32) and indices of max-pools that are made in the row and that training keeps for
            the backward pass, whichever row needs them.
        layers: its convolutions, linear layers and pools, in execution order.
    """

    name: str
    module: str
    inputs: tuple[str, ...]
    channels: int
    reduction: int
    parameters: int
    weights: int
    stored_values: int
    size_bytes: int
    activation_bytes: int
    layers: tuple[LayerProfile, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions and linear layers; norms and activations do not count, norms are not fused."""
        return sum(layer.macs for layer in self.layers)

    @property
    def cio(self) -> int:
        """Values that its layers read and write (``ModelProfile.cio``)."""
        return sum(layer.input_elements + layer.output_elements for layer in self.layers)


@dataclass(frozen=True)
class ModelProfile:
    """Cost of a model, for one image.

    Args:
        name: of the model.
        image_hw: input height and width.
        num_classes: K.
        rows: in execution order.
        file_bytes: ``measure_file``; None where it was not measured.
    """

    name: str
    image_hw: tuple[int, int]
    num_classes: int
    rows: tuple[RowProfile, ...]
    file_bytes: int | None = None

    @property
    def layers(self) -> tuple[LayerProfile, ...]:
        return tuple(layer for row in self.rows for layer in row.layers)

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def weights(self) -> int:
        return sum(row.weights for row in self.rows)

    @property
    def stored_values(self) -> int:
        """Values of a Darknet weights file."""
        return sum(row.stored_values for row in self.rows)

    @property
    def size_bytes(self) -> int:
        """Model size of the BDSC paper, whose MB are 2 ** 20 bytes."""
        return sum(row.size_bytes for row in self.rows)

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.rows)

    @property
    def gflops(self) -> float:
        """2 * multiply-adds / 1e9."""
        return 2 * self.macs / 1e9

    @property
    def bflops(self) -> float:
        """Billions of operations as Darknet counts them (``LayerProfile.darknet_flops``)."""
        return sum(layer.darknet_flops for layer in self.layers) / 1e9

    @property
    def bdsc_macs(self) -> float:
        """Multiply-adds as the BDSC paper counts them (``LayerProfile.bdsc_macs``)."""
        return sum(layer.bdsc_macs for layer in self.layers)

    @property
    def ones(self) -> float | None:
        """Share of ones in the masks (q of the BDSC paper), each weighted by its multiply-adds; None without masks."""
        masks = [(layer.macs, layer.ones) for layer in self.layers if layer.ones is not None]
        return sum(macs * ones for macs, ones in masks) / sum(macs for macs, _ in masks) if masks else None

    @property
    def activation_bytes(self) -> int:
        """Bytes kept for the backward pass, for each image of a batch; without the image and the loss."""
        return sum(row.activation_bytes for row in self.rows)

    @property
    def cio(self) -> int:
        """Convolutional input/output: values that convolutions, linear layers and pools read and write; no weights."""
        # A proxy for the traffic between memory and processor: HarDNet (Chao et al., 2019) for convolutions; that pools
        # count follows from the totals of CSPNet (Wang et al., 2020), section 4.5.
        return sum(row.cio for row in self.rows)

    @property
    def bottleneck(self) -> LayerProfile | None:
        """Layer with the most multiply-adds, the first of equals (CSPNet, section 4.5); None without layers."""
        return max(self.layers, key=lambda layer: layer.macs, default=None)

    def to_plain(self) -> dict[str, Any]:
        """Return the profile as a mapping for JSON."""
        rows = [{**asdict(row), "macs": row.macs} for row in self.rows]
        for row in rows:
            del row["layers"]
        bottleneck = self.bottleneck
        return {
            "name": self.name,
            "image_size": list(self.image_hw),
            "num_classes": self.num_classes,
            **{measure: getattr(self, measure) for measure in MEASURES},
            "bottleneck": bottleneck.path if bottleneck else None,
            "bottleneck_macs": bottleneck.macs if bottleneck else 0,
            "rows": rows,
            "layers": [
                {"row": row.name, **asdict(layer), "darknet_flops": layer.darknet_flops}
                for row in self.rows
                for layer in row.layers
            ],
        }


def profile_model(name: str, image_size: int, num_classes: int) -> ModelProfile:
    """Profile a detector or classifier by name or file, without computing anything (on PyTorch's meta device)."""
    return profile_graph(build_on_meta(name, num_classes), image_size, num_classes)


def profile_with_file(name: str, image_size: int, num_classes: int) -> ModelProfile:
    """Profile a model as ``profile_model`` does, and the size of its checkpoint file (``measure_file``)."""
    profile = profile_model(name, image_size, num_classes)
    return replace(profile, file_bytes=measure_file(find_definition(name), num_classes, image_size))


def profile_checkpoint(path: Path, image_size: int | None) -> ModelProfile:
    """Profile the network of a checkpoint, with the masks that it has learnt.

    Args:
        path: the file.
        image_size: side of the square input in pixels; None: the training's.
    """
    checkpoint = load_checkpoint(path)
    graph = checkpoint.model.graph
    side = checkpoint.image_size if image_size is None else image_size
    with torch.device("meta"):
        profile = profile_graph(Graph(graph.definition, len(checkpoint.names)), side, len(checkpoint.names))
    rows = tuple(_with_masks(row, graph.layer(row.name)) for row in profile.rows)
    return replace(profile, rows=rows, file_bytes=path.stat().st_size)


def _with_masks(row: RowProfile, module: nn.Module) -> RowProfile:
    """Return a row with the share of ones of the masks in its module."""
    masks = {f"{row.name}.{key.removesuffix('.weight')}": layer.ones for key, layer in packed_layers(module).items()}
    return replace(row, layers=tuple(replace(layer, ones=masks.get(layer.path)) for layer in row.layers))


def build_on_meta(name: str, num_classes: int) -> Graph:
    """Build a graph on the meta device: shapes without values; see ``profile_model``."""
    with torch.device("meta"):
        return Graph(find_definition(name), num_classes)


def conditions_of(name: str) -> tuple[int, int]:
    """Return the side of the input and the number of classes with which the costs of a model are listed."""
    if not find_definition(name).is_classifier:
        return 640, 80
    return (224, 1000) if build_on_meta(name, 1000).max_reduction >= 32 else (32, 10)


def profile_graph(graph: Graph, image_size: int, num_classes: int, memory: bool = True) -> ModelProfile:
    """Profile a graph on the meta device, whose mode may change.

    Without ``memory`` all ``activation_bytes`` are 0; they take most of the time. An ``InputError`` reports a size that
    does not suit the graph.
    """
    name, image_hw = graph.definition.name, (image_size, image_size)
    if image_size % graph.max_reduction:
        raise InputError(f"image size {image_size}: must be a multiple of {graph.max_reduction} for {name}")
    layers = _layers(graph, image_hw)
    activation_bytes = kept_bytes(graph, image_hw) if memory else dict.fromkeys(layers, 0)
    rows = tuple(
        _profile_row(graph, row, layers[row.name], activation_bytes[row.name]) for row in graph.definition.rows
    )
    return ModelProfile(name, image_hw, num_classes, rows)


def graph_macs(graph: Graph, image_hw: tuple[int, int]) -> int:
    """Count the multiply-adds of one image of any size, with the current transform of a graph on the meta device."""
    return sum(layer.macs for layers in _layers(graph, image_hw).values() for layer in layers)


class MacCounter:
    """Counter of multiply-adds with any transform, which computes each transform and size once.

    Args:
        graph: the network; a copy without values is kept.
        num_classes: its K.
    """

    def __init__(self, graph: Graph, num_classes: int) -> None:
        with torch.device("meta"):
            self._graph = Graph(graph.definition, num_classes)
        self._known: dict[tuple[GraphTransform, tuple[int, int]], int] = {}

    def macs(self, transform: GraphTransform, image_hw: tuple[int, int]) -> int:
        key = (transform, image_hw)
        if key not in self._known:
            self._graph.use_transform(transform)
            self._known[key] = graph_macs(self._graph, image_hw)
        return self._known[key]


def _profile_row(graph: Graph, row: Row, layers: tuple[LayerProfile, ...], activation_bytes: int) -> RowProfile:
    module, shape = graph.layer(row.name), graph.shapes[row.name]
    parameters = sum(p.numel() for p in module.parameters())
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    return RowProfile(
        name=row.name,
        module=row.module,
        inputs=row.inputs,
        channels=shape.channels,
        reduction=shape.reduction,
        parameters=parameters,
        weights=sum(m.weight.numel() for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))),
        stored_values=parameters + sum(2 * norm.num_features for norm in norms),
        size_bytes=count_bytes(module),
        activation_bytes=activation_bytes,
        layers=layers,
    )


def _layers(graph: Graph, image_hw: tuple[int, int]) -> dict[str, tuple[LayerProfile, ...]]:
    graph.eval()
    image = torch.empty(1, 3, *image_hw, device="meta")
    values: dict[str, Any] = {"image": image}
    flow = graph.transform.start(graph, image)
    found = {}
    for row in graph.definition.rows:
        with record_layers(graph.layer(row.name), row.name) as layers, torch.no_grad():
            values[row.name] = graph.run_row(row, values, flow)
        found[row.name] = tuple(layers)
    return found


def count_bytes(module: nn.Module) -> int:
    """Return the model size of the BDSC paper (AAAI 2018) in bytes; its MB are 2 ** 20 of them."""
    # 4 bytes for each weight, each bias and each of the four values of a norm's channel; for binary weights a bit for
    # each entry and 4 bytes for the magnitude of each output.
    packed = packed_layers(module).values()
    floats = sum(p.numel() for p in module.parameters()) - sum(layer.weight.numel() for layer in packed)
    floats += sum(2 * layer.num_features for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))
    return 4 * floats + sum(layer.packed_bytes for layer in packed)


def measure_file(definition: ModelDefinition, num_classes: int, image_size: int) -> int | None:
    """Return the bytes of the model's best checkpoint after a training; one is made in memory.

    Its provenance and metrics are left out, some thousand bytes; the names of the classes are numbers.

    Args:
        definition: the model.
        num_classes: K.
        image_size: side of the square input in pixels.

    Returns:
        The size; None where the last row is no head.
    """
    if not issubclass(find_block(definition.rows[-1].module), (DetectionHead, Classify)):
        return None
    with torch.device("meta"):  # the values do not matter, so that nothing is initialised
        model = empty_model(definition, num_classes).to_empty(device="cpu")
    numbers = range(num_classes)
    checkpoint = Checkpoint(
        model,
        names=tuple(map(str, numbers)),
        category_ids=tuple(numbers),
        image_size=image_size,
        metrics={},
        provenance={},
    )
    return checkpoint_archive(checkpoint).getbuffer().nbytes
