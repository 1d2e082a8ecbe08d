"""Module graph of a model definition: rows are built and run in order, each from the outputs of the rows it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from detect.config.model import Convolutions
from detect.errors import InputError
from detect.models import blocks, class_heads, heads  # noqa: F401 (importing registers them)
from detect.models.definition import ModelDefinition, Row, Section
from detect.models.registry import Block
from detect.models.rows import (
    build_row,
    choose_convolutions,
    plan_pieces,
    refuse_idle_defaults,
    refuse_idle_rows,
    set_norms,
)
from detect.safety.untrusted import AllocationLimit
from detect.structures import FeatureShape

IMAGE = FeatureShape(channels=3, reduction=1)


class Flow:
    """Hook on the maps of one forward pass between rows; the base class leaves them as they are."""

    def needs_map(self, row: Row) -> bool:
        """Return True where the row's output must be one map, not pieces, because it may be changed."""
        return False

    def inputs(self, row: Row, maps: list[Any]) -> list[Any]:
        """Return the row's inputs, given the outputs of the rows that it names."""
        return maps

    def output(self, row: Row, output: Any) -> None:
        """Observe a row's output, in front of the point behind the row."""


@dataclass(frozen=True)
class GraphTransform:
    """Change of a graph that keeps its weights (a paper's); the base class changes nothing. It holds no graph."""

    @property
    def name(self) -> str:
        """Name of the resulting network, for exported files."""
        return "plain"

    @property
    def fixed_sizes(self) -> str:
        """Reason why an exported network takes one image size only; empty where maps have their nominal sizes."""
        return ""

    def enter(self, graph: Graph) -> None:
        """Set the graph's modules up; the previous transform has left."""

    def leave(self, graph: Graph) -> None:
        """Undo what ``enter`` did."""

    def start(self, graph: Graph, image: Tensor) -> Flow:
        """Return the flow of one forward pass of images (B, 3, H, W)."""
        return Flow()


NO_TRANSFORM = GraphTransform()


class Graph(nn.Module):
    """Rows of a definition, run in order.

    Each row's module is ``layers.<row name>``. ``shapes`` holds each row's output shape in the plain network.

    Args:
        definition: the model.
        num_classes: K, for the head.

    Raises:
        InputError: a row cannot be built; with file, row, what was found and what is allowed.
    """

    def __init__(self, definition: ModelDefinition, num_classes: int) -> None:
        super().__init__()
        self.definition = definition
        self.layers = nn.ModuleDict()
        self.shapes: dict[str, FeatureShape] = {"image": IMAGE}
        used: set[str | Convolutions] = {Convolutions()}
        with AllocationLimit():
            for section in definition.sections:
                for row in section.rows:
                    self._add(row, section, num_classes, used)
        refuse_idle_defaults(definition, used)
        refuse_idle_rows(definition)
        self._last_use = {name: i for i, row in enumerate(definition.rows) for name in row.inputs}
        self._as_pieces = plan_pieces(definition, {row.name: self.layer(row.name) for row in definition.rows})
        self.behind = nn.ModuleDict()  # a transform's ResizePoint behind a row, by the row's name
        self.transform = NO_TRANSFORM

    def forward(self, image: Tensor) -> Any:
        """(B, 3, H, W) to the output of the last row.

        A space-to-depth whose consumers are all convolutions of stride 1 is not carried out: they take it in pieces
        (``detect.models.blocks.space_to_depth.convolve``), with the same result.
        """
        values: dict[str, Any] = {"image": image}
        flow = self.transform.start(self, image)
        for i, row in enumerate(self.definition.rows):
            if row.name in self._as_pieces and not flow.needs_map(row):
                values[row.name] = self.layer(row.name).pieces(*(values[name] for name in row.inputs))
            else:
                values[row.name] = self.run_row(row, values, flow)
            for name in row.inputs:  # a map is dropped after its last use
                if self._last_use[name] == i:
                    values.pop(name, None)
        return values[self.definition.rows[-1].name]

    def run_row(self, row: Row, values: dict[str, Any], flow: Flow) -> Any:
        """Run a row; ``values`` holds the outputs of the rows that it reads."""
        output = self.layer(row.name)(*flow.inputs(row, [values[name] for name in row.inputs]))
        flow.output(row, output)
        return self.behind[row.name](output) if row.name in self.behind else output

    def use_transform(self, transform: GraphTransform) -> None:
        """Undo the transform in use, and apply another one."""
        self.transform.leave(self)
        transform.enter(self)
        self.transform = transform

    def layer(self, name: str) -> Block:
        layer = self.layers[name]
        assert isinstance(layer, Block), f"{name} is not a block"
        return layer

    @property
    def max_reduction(self) -> int:
        """Number of pixels of which input height and width must be multiples."""
        return max(shape.reduction for shape in self.shapes.values())

    @property
    def last(self) -> Block:
        return self.layer(self.definition.rows[-1].name)

    def _add(self, row: Row, section: Section, num_classes: int, used: set[str | Convolutions]) -> None:
        inputs = [self.shapes[name] for name in row.inputs]
        try:
            if hasattr(self.layers, row.name):
                raise InputError(f"name: {row.name!r} is an attribute of PyTorch's modules; choose another name")
            layer, taken = build_row(row, inputs, section, num_classes)
            shape = layer.out_shape(*inputs)
            if row.reduction is not None and row.reduction != shape.reduction:
                raise InputError(f"reduction: stated {row.reduction}, built {shape.reduction}")
            is_first = not any(isinstance(module, nn.Conv2d) for module in self.layers.modules())
            conv = choose_convolutions(layer, row, section, is_first)
        except InputError as error:
            raise InputError(f"{self.definition.where(section)}: {row.label}: {error}") from None
        set_norms(layer, section.norm)
        used |= {*taken, conv}
        self.layers[row.name], self.shapes[row.name] = layer, shape
