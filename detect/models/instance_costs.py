"""What the instances of a network (SDPoint) cost, at any image size."""

from __future__ import annotations

import torch

from detect.models.graph import Graph
from detect.models.profile import graph_macs
from detect.models.sdpoint import Instance


class InstanceCosts:
    """Counts multiply-adds; each instance and size once.

    Args:
        graph: the network; a copy without values is kept.
        num_classes: K of it.
    """

    def __init__(self, graph: Graph, num_classes: int) -> None:
        with torch.device("meta"):
            self._graph = Graph(graph.definition, num_classes)
        self._graph.way = graph.way
        self._known: dict[tuple[Instance, tuple[int, int]], int] = {}

    def macs(self, instance: Instance, image_hw: tuple[int, int]) -> int:
        """Multiply-adds of one image of that height and width."""
        key = (instance, image_hw)
        if key not in self._known:
            self._graph.use_instance(instance)
            self._known[key] = graph_macs(self._graph, image_hw)
        return self._known[key]
