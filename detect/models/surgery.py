"""Strided weights as the start of a space-to-depth model: the same function, in the form of other layers.

Every row of the space-to-depth model takes its weights from the row of that name (``detect.models.rearrangement``).
Where a map has more channels than its strided counterpart, as behind a convolution whose space-to-depth comes last,
the rows that read it weigh the others with zeros. Both models then run on one image: which rows compute the same is
measured, not assumed.

Source: SPD-Conv (Sunkara and Luo, 2022), section 3: what a stride skips is a part of what a space-to-depth keeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from detect.models.build import build_classifier, build_model
from detect.models.definition import ModelDefinition, Row, Section
from detect.models.graph import IMAGE, Flow, Graph, GraphTransform
from detect.models.model import Model
from detect.models.rearrangement import Channels, State, prefixed, rearrange

TOLERANCE = 1e-4
"""Largest difference of equal maps, as a share of their largest value: above float32's rounding in deep models."""
_SEED = 0
_WAYS = ("downsample", "order")
"""Keywords that choose how a block halves its map."""


@dataclass(frozen=True)
class Rearranged:
    """Weights of a strided model in the form of its space-to-depth counterpart.

    Args:
        state: by the counterpart's names; without the weights that have no strided counterpart.
        rows: names of rows whose weights have another form.
        differing: names of rows that compute other values than their strided counterparts do of the same ones.
        difference: largest difference of the models' outputs as a share of their largest value; infinite where the
            strided model ends otherwise.
    """

    state: State
    rows: tuple[str, ...]
    differing: tuple[str, ...]
    difference: float

    @property
    def is_same(self) -> bool:
        """True where both models compute the same function, to rounding."""
        # The outputs of weak initial weights are nearly those of the head's biases, whatever the rows compute.
        return self.difference <= TOLERANCE and not self.differing

    @property
    def line(self) -> str:
        """Description for the user."""
        start = f"strided weights became SPD: {len(self.rows)} rows rearranged"
        if self.is_same:
            return f"{start}, the function is the same (outputs differ by {self.difference:.0e} of the largest)"
        if self.differing:
            return (
                f"{start}; the function is another one, for these rows have no exact form: {', '.join(self.differing)}"
            )
        return f"{start}, which compute the same; the models differ beyond"


def becomes_spd(source: ModelDefinition, target: ModelDefinition) -> bool:
    """Return True if a row of ``source`` halves by a stride where that of ``target`` does by a space-to-depth."""
    before, after = _downsample(source), _downsample(target)
    return any(before.get(name) == "stride" and kind == "spd" for name, kind in after.items())


def with_downsample(definition: ModelDefinition, other: ModelDefinition) -> ModelDefinition:
    """Return a definition whose sections halve maps as those of the same names in another one do."""
    given = {section.name: section.defaults for section in other.sections}

    def changed(section: Section) -> Section:
        ways = given.get(section.name, {})
        items = section.defaults.items()
        return replace(section, defaults={key: ways.get(key, own) if key in _WAYS else own for key, own in items})

    return replace(definition, sections=tuple(map(changed, definition.sections)))


def _downsample(definition: ModelDefinition) -> dict[str, str]:
    """Return the keyword ``downsample`` of each row, whether or not its module has it."""
    return {
        row.name: {"downsample": "stride", **section.defaults, **row.args}["downsample"]
        for section in definition.sections
        for row in section.rows
    }


def spd_model(source: Model, definition: ModelDefinition) -> tuple[Model, Rearranged]:
    """Build a model with the weights of a strided one, of as many classes, rearranged.

    Args:
        source: strided, float32; set to evaluation mode.
        definition: of the space-to-depth model.

    Returns:
        The model in evaluation mode, with initial weights where the strided one has none; and what was done.
    """
    build = build_classifier if definition.is_classifier else build_model
    with torch.random.fork_rng(devices=[]):  # a training draws the same numbers with and without
        model: Model = build(definition, source.num_classes)
    places = _places(model.graph, source.graph)
    state, rows = _rearrange_rows(model, source, places)
    model.load_state_dict(state, strict=False)
    outputs = _run(source.eval(), 2 * max(model.max_reduction, source.max_reduction))
    last = definition.rows[-1].name
    with torch.no_grad():
        differences = _row_differences(model.eval().graph, outputs, places)
        difference = (
            _difference(model.graph(outputs["image"]), outputs[last], places[last]) if last in differences else math.inf
        )
    differing = [name for name, value in differences.items() if value > TOLERANCE]
    return model, Rearranged(state, tuple(rows), tuple(differing), difference)


def compare_rows(model: Model, source: Model) -> dict[str, bool]:
    """Compare the rows of two models that have the same names and inputs; True: it computes the same.

    Rows that cannot read the same maps are left out. Both models are set to evaluation mode; float32 on the CPU.
    """
    places = _places(model.graph, source.graph)
    outputs = _run(source.eval(), 2 * max(model.max_reduction, source.max_reduction))
    with torch.no_grad():
        found = _row_differences(model.eval().graph, outputs, places)
    return {name: difference <= TOLERANCE for name, difference in found.items()}


def _places(graph: Graph, strided: Graph) -> dict[str, Channels]:
    """Return the places of the strided rows' channels in the rows of the same names, where they are known."""
    places: dict[str, Channels] = {"image": Channels.first(IMAGE.channels, IMAGE.channels)}
    for row in _common_rows(graph, strided):
        found = None
        if all(name in places for name in row.inputs):
            found = graph.layer(row.name).places(*(places[name] for name in row.inputs))
        count, total = (each.shapes[row.name].channels for each in (strided, graph))
        if found is None and count == total:
            found = Channels.first(count, total)
        if found is not None and (len(found.places), found.total) == (count, total):
            places[row.name] = found
    return places


def _common_rows(graph: Graph, strided: Graph) -> list[Row]:
    """Return the rows whose names, inputs and sizes of cells are those of a row of the other graph."""
    inputs = {row.name: row.inputs for row in strided.definition.rows}
    shared = [row for row in graph.definition.rows if inputs.get(row.name) == row.inputs]
    return [row for row in shared if graph.shapes[row.name].reduction == strided.shapes[row.name].reduction]


def _rearrange_rows(model: Model, source: Model, places: dict[str, Channels]) -> tuple[State, list[str]]:
    """Return the weights of ``model``, and the names of the rows whose weights are not the source's own."""
    own, given = model.state_dict(), source.state_dict()
    state = {name: tensor for name, tensor in given.items() if not name.startswith("graph.")}  # of the images
    rows = []
    for row in _common_rows(model.graph, source.graph):
        inputs = [places[name] for name in row.inputs if name in places]
        found = rearrange(model.graph.layer(row.name), source.graph.layer(row.name), inputs)
        named = prefixed(f"graph.layers.{row.name}", found)
        # A buffer, as of the cells of a head without anchors, may be in no state dict.
        weights = {name: tensor.detach() for name, tensor in named.items() if name in own}
        fitting = {name: tensor for name, tensor in weights.items() if own[name].shape == tensor.shape}
        if any(name not in given or not torch.equal(given[name], tensor) for name, tensor in fitting.items()):
            rows.append(row.name)
        state |= fitting
    return state, rows


class _Recorder(Flow):
    """Flow that keeps every row's output as a map."""

    def __init__(self, outputs: dict[str, Any]) -> None:
        self.outputs = outputs

    def needs_map(self, row: Row) -> bool:
        return True

    def output(self, row: Row, output: Any) -> None:
        self.outputs[row.name] = output


@dataclass(frozen=True)
class _Recording(GraphTransform):
    """Transform that records the rows' outputs."""

    outputs: dict[str, Any]

    def start(self, graph: Graph, image: Tensor) -> Flow:
        return _Recorder(self.outputs)


def _run(source: Model, side: int) -> dict[str, Any]:
    """Return the rows' outputs for a random image (1, 3, side, side), which is among them as ``image``."""
    image = torch.rand(1, IMAGE.channels, side, side, generator=_generator())
    recording, before = _Recording({"image": image}), source.graph.transform
    source.graph.use_transform(recording)
    with torch.no_grad():
        source.graph(image)
    source.graph.use_transform(before)
    return recording.outputs


def _row_differences(graph: Graph, outputs: dict[str, Any], places: dict[str, Channels]) -> dict[str, float]:
    """Return the difference of each row from the strided one, where both read the same maps.

    The channels that the strided map lacks hold random values: a row must not depend on them.
    """
    generator = _generator()
    differences = {}
    for row in graph.definition.rows:
        if row.name not in places or not all(name in places for name in row.inputs):
            continue
        maps = []
        for name in row.inputs:
            given = outputs[name]
            wide = torch.rand(1, places[name].total, *given.shape[2:], generator=generator)
            wide[:, places[name].places] = given
            maps.append(wide)
        differences[row.name] = _difference(graph.layer(row.name)(*maps), outputs[row.name], places[row.name])
    return differences


def _difference(found: Any, expected: Any, places: Channels) -> float:
    """Return the largest difference as a share of the largest value expected, of a map or of a head's output."""
    if isinstance(expected, list):  # a detection head's maps, one for each level
        return max(_difference(own, wanted, places) for own, wanted in zip(found, expected, strict=True))
    if found.shape != expected.shape:
        found = found[:, places.places]
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=torch.finfo().tiny))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(_SEED)
