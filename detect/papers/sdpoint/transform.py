"""A network with points where a map may be made smaller, so that everything behind it costs less (SDPoint).

A network with N points and some ratios is many networks, its instances, which share all weights.

Letters: B batch, H W pixels, r ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from detect.analysis.profile import MacCounter
from detect.config.base import Strict
from detect.errors import InputError
from detect.models.definition import Row
from detect.models.graph import Flow, Graph, GraphTransform
from detect.models.model import Model
from detect.models.registry import Block
from detect.models.resize import PoolPoint, ResizePoint, resize_cells

Way = Literal["restore", "shrink"]
"""What becomes of a detector's levels behind a point. ``restore``: every map that the neck or the head reads is brought
back to its nominal size, so that these cost what they do. ``shrink``: each level of the neck and the head has the size
of the backbone's map, so that they get cheaper too; a cell is more pixels. A classifier's pool takes any size."""


@dataclass(frozen=True)
class Instance(Strict):
    """One of the networks in a network with points.

    Args:
        point: from 1 in execution order; 0 is the plain network.
        ratio: r, in (0, 1); 1 for the plain network.
    """

    point: int
    ratio: float

    @property
    def name(self) -> str:
        """``3@0.5``, or ``plain``."""
        return f"{self.point}@{self.ratio:g}" if self.point else "plain"


PLAIN = Instance(0, 1.0)
"""The network without any downsampling at a point."""


def list_instances(points: Sequence[int], ratios: Sequence[float]) -> list[Instance]:
    """The plain network, then every point with every ratio."""
    return [PLAIN, *(Instance(point, ratio) for point in points for ratio in ratios)]


@dataclass(frozen=True)
class InstanceTransform(GraphTransform):
    """An instance of a graph.

    Args:
        instance: point and ratio.
        way: what becomes of a detector's levels.
    """

    instance: Instance = PLAIN
    way: Way = "restore"

    @property
    def name(self) -> str:
        """See ``Instance``."""
        return self.instance.name

    @property
    def fixed_sizes(self) -> str:
        """See ``GraphTransform``."""
        return "" if self.instance == PLAIN else "an instance of SDPoint has its maps' sizes built in"

    def enter(self, graph: Graph) -> None:
        """See ``GraphTransform``: set the ratio of the instance's point."""
        if self.instance != PLAIN:
            find_points(graph)[self.instance.point - 1].ratio = self.instance.ratio

    def leave(self, graph: Graph) -> None:
        """See ``GraphTransform``."""
        if self.instance != PLAIN:
            find_points(graph)[self.instance.point - 1].ratio = None

    def start(self, graph: Graph, image: Tensor) -> Flow:
        """See ``GraphTransform``."""
        return Flow() if self.instance == PLAIN else _InstanceFlow(graph, self.way, image)


class _InstanceFlow(Flow):
    """Brings a detector's levels to the sizes that the neck and the head read.

    To ``restore`` these are the nominal ones. To ``shrink``, a map of the backbone that others read settles its
    level's.
    """

    def __init__(self, graph: Graph, way: Way, image: Tensor) -> None:
        rows = graph.definition.rows
        others = (row for row in rows if row.section != "backbone")
        backbone = {row.name for row in rows if row.section == "backbone"}
        self._tapped = {name for row in others for name in row.inputs if name in backbone}
        self._untouched = backbone - self._tapped
        self._shapes = graph.shapes
        is_detector = not graph.definition.is_classifier
        self._shrinks = is_detector and way == "shrink"
        self._sizes: dict[int, tuple[int, int]] = {}  # of a reduction's maps
        if is_detector and way == "restore":
            height, width = image.shape[2:]
            self._sizes = {s.reduction: (height // s.reduction, width // s.reduction) for s in graph.shapes.values()}

    def needs_map(self, row: Row) -> bool:
        # In pieces a map has no size that could be changed.
        return row.name not in self._untouched

    def inputs(self, row: Row, maps: list[Any]) -> list[Any]:
        if not self._sizes or row.section == "backbone":
            return maps
        return [self._resized(x, name) for x, name in zip(maps, row.inputs, strict=True)]

    def output(self, row: Row, output: Any) -> None:
        if self._shrinks and row.name in self._tapped:
            self._sizes[self._shapes[row.name].reduction] = (output.shape[2], output.shape[3])

    def _resized(self, x: Any, name: str) -> Any:
        """The output of row ``name`` with its level's size; what has no level of the backbone's stays."""
        size_hw = self._sizes.get(self._shapes[name].reduction)
        return x if size_hw is None else resize_cells(x, size_hw)


def find_points(graph: Graph) -> list[ResizePoint]:
    """All points in execution order; the first is number 1.

    They are those that the backbone's blocks name, and one behind each row that is a block as a whole. Where no block
    names any, the rows of plain convolutions are blocks.
    """
    rows = [(row, graph.layer(row.name)) for row in graph.definition.rows if row.section == "backbone"]
    has_blocks = any(layer.point_behind or _inner_points(layer) for _, layer in rows)
    read = [name for row in graph.definition.rows for name in row.inputs]
    found: list[ResizePoint] = []
    for row, layer in rows:
        # A max-pool is a point in front of the first block only, the stem's, and with no branch beside it.
        is_stem = not found and read.count(row.inputs[0]) == 1
        found += [point for point in layer.points if is_stem or not isinstance(point, PoolPoint)]
        if layer.point_behind or (row.module == "Conv" and not has_blocks):
            if row.name not in graph.behind:
                graph.behind[row.name] = ResizePoint()
            point = graph.behind[row.name]
            assert isinstance(point, ResizePoint), "nothing else is put there"
            found.append(point)
    return found


def _inner_points(layer: Block) -> list[ResizePoint]:
    return [point for point in layer.points if not isinstance(point, PoolPoint)]


def instance_of(network: Graph | Model) -> Instance:
    """The instance that runs."""
    return _transform_of(_graph_of(network)).instance


def way_of(network: Graph | Model) -> Way:
    """What becomes of a detector's levels behind a point."""
    return _transform_of(_graph_of(network)).way


def set_way(network: Graph | Model, way: Way) -> None:
    """Set what becomes of a detector's levels behind a point, from now on."""
    graph = _graph_of(network)
    graph.use_transform(InstanceTransform(instance_of(graph), way))


def use_instance(network: Graph | Model, instance: Instance) -> None:
    """Run another of the networks that share these weights, from now on; a model with its norms' statistics.

    It takes less than a millisecond. The state of a model is that of the plain network only while that runs.

    Args:
        network: is changed.
        instance: point and ratio.

    Raises:
        InputError: there is no such point.
    """
    graph = _graph_of(network)
    previous, count = instance_of(graph), len(find_points(graph))
    if not 0 <= instance.point <= count:
        allowed = f"1 to {count}, or 0 for the plain network" if count else "0, it has none"
        raise InputError(f"point: {graph.definition.name} has no point {instance.point}; allowed: {allowed}")
    graph.use_transform(InstanceTransform(instance, way_of(graph)))
    for norms in network.extras.values() if isinstance(network, Model) else ():
        norms.exchange(graph, previous)  # type: ignore[operator]
        norms.exchange(graph, instance)  # type: ignore[operator]


class InstanceCosts:
    """Counts multiply-adds of a graph's instances, with its way; each instance and size once.

    Args:
        graph: the network; a copy without values is kept.
        num_classes: K of it.
    """

    def __init__(self, graph: Graph, num_classes: int) -> None:
        self._counter, self._way = MacCounter(graph, num_classes), way_of(graph)

    def macs(self, instance: Instance, image_hw: tuple[int, int]) -> int:
        """Multiply-adds of one image of that height and width."""
        return self._counter.macs(InstanceTransform(instance, self._way), image_hw)


def _graph_of(network: Graph | Model) -> Graph:
    return network.graph if isinstance(network, Model) else network


def _transform_of(graph: Graph) -> InstanceTransform:
    """The graph's transform; one without has that of the plain network."""
    return graph.transform if isinstance(graph.transform, InstanceTransform) else InstanceTransform()
