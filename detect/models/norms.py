"""Batch norms of a graph by name, and their running statistics."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from detect.models.graph import Graph

Statistics = dict[str, tuple[Tensor, Tensor]]
"""Running mean and variance, (C,) each, of norms by their path in the graph."""
Affine = dict[str, tuple[Tensor, Tensor]]
"""Weight and bias, the scale and shift of each channel, (C,) each, of norms by their path in the graph."""


def named_norms(graph: Graph) -> Iterator[tuple[str, nn.BatchNorm2d]]:
    return ((path, m) for path, m in graph.named_modules() if isinstance(m, nn.BatchNorm2d))


def set_statistics(graph: Graph, statistics: Statistics) -> None:
    """Replace the running statistics of the norms that are named; the tensors are not copied."""
    for path, norm in named_norms(graph):
        if path in statistics:
            norm.running_mean, norm.running_var = statistics[path]
