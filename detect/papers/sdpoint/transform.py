"""SDPoint as a graph transform: at one of N points a feature map is downsampled, so that all behind it costs less.

Each point with each ratio is an instance of the network, and so is each of them, or the plain network, on smaller
images; all instances share the weights.

Letters: B batch, H W pixels, r ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from detect.analysis.profile import MacCounter
from detect.config.base import Strict
from detect.errors import InputError
from detect.models.definition import Row
from detect.models.graph import Flow, Graph, GraphTransform
from detect.models.model import Model
from detect.models.registry import Block, PoolPoint, ResizePoint, resize_cells

Way = Literal["restore", "shrink"]
"""Treatment of a detector's levels behind a point. ``restore``: maps that neck or head read are resized to their
nominal size, so that the cost of these stays. ``shrink``: each level of neck and head has the size of the backbone's
map, so that they get cheaper too, and a cell covers more pixels. Both read a row's map in front of the point behind it.
A classifier's pool takes any size."""


@dataclass(frozen=True)
class Instance(Strict):
    """A point and its ratio, and the size of the images.

    Args:
        point: from 1 in execution order; 0 is the plain network.
        ratio: r, in (0, 1); 1 for the plain network.
        scale: size of the images as a share of the full one, in (0, 1].
    """

    point: int
    ratio: float
    scale: float = 1.0

    @property
    def name(self) -> str:
        """As ``3@0.5``, or ``plain``; at 3/4 of the image size ``3@0.5*0.75``."""
        network = f"{self.point}@{self.ratio:g}" if self.point else "plain"
        return network if self.scale == 1 else f"{network}*{self.scale:.3g}"

    def network_hw(self, full_hw: tuple[int, int], multiple: int) -> tuple[int, int]:
        """Height and width of the network input, multiples of ``multiple``, for an input of ``full_hw`` at scale 1."""
        if self.scale == 1:
            return full_hw
        height, width = (max(round(side * self.scale / multiple), 1) * multiple for side in full_hw)
        return height, width


PLAIN = Instance(0, 1.0)
"""The network without downsampling at any point."""


def list_instances(points: Sequence[int], ratios: Sequence[float], scales: Sequence[float] = (1.0,)) -> list[Instance]:
    """List for each scale the plain network, then every point with every ratio."""
    networks = [(0, 1.0), *((point, ratio) for point in points for ratio in ratios)]
    return [Instance(point, ratio, scale) for scale in scales for point, ratio in networks]


@dataclass(frozen=True)
class InstanceTransform(GraphTransform):
    """The transform of a graph to an instance.

    Args:
        instance: point and ratio.
        way: treatment of a detector's levels.
    """

    instance: Instance = PLAIN
    way: Way = "restore"

    @property
    def name(self) -> str:
        return self.instance.name

    @property
    def fixed_sizes(self) -> str:
        return "" if self.instance.point == 0 else "an instance of SDPoint has its maps' sizes built in"

    def enter(self, graph: Graph) -> None:
        if self.instance.point:
            find_points(graph)[self.instance.point - 1].ratio = self.instance.ratio

    def leave(self, graph: Graph) -> None:
        if self.instance.point:
            find_points(graph)[self.instance.point - 1].ratio = None

    def start(self, graph: Graph, image: Tensor) -> Flow:
        return Flow() if self.instance.point == 0 else _InstanceFlow(graph, self.way, image)


class _InstanceFlow(Flow):
    """Gives neck and head the maps in front of the point, each resized to its level.

    A level has its nominal size, or with ``shrink`` that of the backbone's map.
    """

    def __init__(self, graph: Graph, way: Way, image: Tensor) -> None:
        rows = graph.definition.rows
        self._tapped = tapped_rows(graph)
        self._untouched = {row.name for row in rows if row.section == "backbone"} - self._tapped
        self._shapes = graph.shapes
        self._in_front: dict[str, Tensor] = {}  # of the point behind a tapped row
        self._behind = graph.behind
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
        named = zip(maps, row.inputs, strict=True)
        return [self._resized(self._in_front.get(name, x), name) for x, name in named]

    def output(self, row: Row, output: Any) -> None:
        if row.name not in self._tapped:
            return
        if row.name in self._behind:
            self._in_front[row.name] = output
        if self._shrinks:
            self._sizes[self._shapes[row.name].reduction] = (output.shape[2], output.shape[3])

    def _resized(self, x: Any, name: str) -> Any:
        """The output of row ``name`` resized to its level; unchanged without a level."""
        size_hw = self._sizes.get(self._shapes[name].reduction)
        if size_hw is None:
            return x
        if size_hw[0] > x.shape[2] or size_hw[1] > x.shape[3]:
            # With repetition AP is up to 0.02 lower (docs/results/sdpoint.md).
            return F.interpolate(x, size_hw, mode="bilinear", align_corners=False)
        return resize_cells(x, size_hw)


def tapped_rows(graph: Graph) -> set[str]:
    """Names of a detector's backbone rows that neck or head read; none of a classifier's."""
    if graph.definition.is_classifier:
        return set()
    rows = graph.definition.rows
    backbone = {row.name for row in rows if row.section == "backbone"}
    return backbone & {name for row in rows if row.section != "backbone" for name in row.inputs}


def find_points(graph: Graph) -> list[ResizePoint]:
    """Find all points in execution order; the first is number 1.

    They are the points of the backbone's blocks, and one behind each row that is a block as a whole. Without any
    block that has points, each row of a plain convolution is a block. Of a row that a detector's neck or head reads the
    last point is behind the row, so that they can read its map in front of the point.
    """
    rows = [(row, graph.layer(row.name)) for row in graph.definition.rows if row.section == "backbone"]
    has_blocks = any(layer.point_behind or _inner_points(layer) for _, layer in rows)
    read = [name for row in graph.definition.rows for name in row.inputs]
    tapped = tapped_rows(graph)
    found: list[ResizePoint] = []
    for row, layer in rows:
        # A max-pool is a point in front of the first block only, the stem's, and with no branch beside it.
        is_stem = not found and read.count(row.inputs[0]) == 1
        inner = [point for point in layer.points if is_stem or not isinstance(point, PoolPoint)]
        is_behind = layer.point_behind or (row.module == "Conv" and not has_blocks)
        if inner and row.name in tapped:
            inner, is_behind = inner[:-1], True
        found += inner
        if is_behind:
            if row.name not in graph.behind:
                graph.behind[row.name] = ResizePoint()
            point = graph.behind[row.name]
            assert isinstance(point, ResizePoint), "nothing else is put there"
            found.append(point)
    return found


def _inner_points(layer: Block) -> list[ResizePoint]:
    return [point for point in layer.points if not isinstance(point, PoolPoint)]


def instance_of(network: Graph | Model) -> Instance:
    """The active instance."""
    return _transform_of(_graph_of(network)).instance


def way_of(network: Graph | Model) -> Way:
    """The treatment of a detector's levels behind a point."""
    return _transform_of(_graph_of(network)).way


def set_way(network: Graph | Model, way: Way) -> None:
    """Set the treatment of a detector's levels behind a point."""
    graph = _graph_of(network)
    graph.use_transform(InstanceTransform(instance_of(graph), way))


def use_instance(network: Graph | Model, instance: Instance) -> None:
    """Activate an instance, in a model with its norms; takes under a millisecond.

    A model's ``state_dict`` is that of the plain network only while the plain network is active.

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
    """Counts multiply-adds of a graph's instances, each instance and size once.

    Args:
        graph: the network; a copy without values is kept.
        num_classes: K of it.
    """

    def __init__(self, graph: Graph, num_classes: int) -> None:
        self._counter, self._way = MacCounter(graph, num_classes), way_of(graph)
        self._multiple = graph.max_reduction

    def macs(self, instance: Instance, full_hw: tuple[int, int]) -> int:
        """Multiply-adds of one image, whose height and width are ``full_hw`` at scale 1."""
        image_hw = instance.network_hw(full_hw, self._multiple)
        return self._counter.macs(InstanceTransform(instance, self._way), image_hw)


def _graph_of(network: Graph | Model) -> Graph:
    return network.graph if isinstance(network, Model) else network


def _transform_of(graph: Graph) -> InstanceTransform:
    return graph.transform if isinstance(graph.transform, InstanceTransform) else InstanceTransform()
