"""Models with fresh weights."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

from detect.models.catalog import find_definition
from detect.models.definition import ModelDefinition
from detect.models.graph import Graph
from detect.models.heads import DetectionHead
from detect.models.model import ClassificationModel, DetectionModel, Model

Initialisation = Literal["torch", "he-in", "he-out"]


def build_model(
    model: str | ModelDefinition, num_classes: int, initialisation: Initialisation = "torch"
) -> DetectionModel:
    """Build a detection model with fresh weights from a definition or its name (``find_definition``).
    ``InputError`` if there is no such model, its YAML is wrong, or it does not end with a detection head.
    """
    built = DetectionModel(_definition(model), num_classes)
    initialise(built.graph, initialisation)
    return built


def build_classifier(
    model: str | ModelDefinition, num_classes: int, initialisation: Initialisation = "torch"
) -> ClassificationModel:
    """Build a classification model with fresh weights; arguments and errors as for ``build_model``."""
    built = ClassificationModel(_definition(model), num_classes)
    initialise(built.graph, initialisation)
    return built


def build_graph(model: str | ModelDefinition, num_classes: int) -> Graph:
    """Build a graph with fresh weights, whatever its head; arguments and errors as for ``build_model``."""
    graph = Graph(_definition(model), num_classes)
    initialise(graph)
    return graph


def empty_model(definition: ModelDefinition, num_classes: int) -> Model:
    """Build the model of the head's task, to be filled with weights."""
    return (ClassificationModel if definition.is_classifier else DetectionModel)(definition, num_classes)


def initialise(graph: Graph, way: Initialisation = "torch") -> None:
    """Initialise convolutions, derived ones by their own rule, and a detection head's biases.

    Args:
        graph: changed in place.
        way: ``torch``, as PyTorch does; ``he-in`` or ``he-out``, normal with variance 2 over the inputs or outputs of a
            kernel (He et al., 2015, equations 10 and 14).
    """
    for layer in graph.modules():
        if type(layer) is nn.Conv2d and way == "torch":
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
        elif type(layer) is nn.Conv2d:
            nn.init.kaiming_normal_(layer.weight, mode="fan_in" if way == "he-in" else "fan_out")
        elif isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    if isinstance(graph.last, DetectionHead):
        graph.last.reset_biases()


def _definition(model: str | ModelDefinition) -> ModelDefinition:
    return find_definition(model) if isinstance(model, str) else model
