"""Models with fresh weights."""

from __future__ import annotations

import math

from torch import nn

from detect.models.catalog import find_definition
from detect.models.definition import ModelDefinition
from detect.models.graph import Graph
from detect.models.heads import DetectionHead
from detect.models.model import ClassificationModel, DetectionModel, Model


def build_model(model: str | ModelDefinition, num_classes: int) -> DetectionModel:
    """Build a detection model with fresh weights from a definition or its name (``find_definition``).
    ``InputError`` if there is no such model, its YAML is wrong, or it does not end with a detection head.
    """
    built = DetectionModel(_definition(model), num_classes)
    initialise(built.graph)
    return built


def build_classifier(model: str | ModelDefinition, num_classes: int) -> ClassificationModel:
    """Build a classification model with fresh weights; arguments and errors as for ``build_model``."""
    built = ClassificationModel(_definition(model), num_classes)
    initialise(built.graph)
    return built


def build_graph(model: str | ModelDefinition, num_classes: int) -> Graph:
    """Build a graph with fresh weights, whatever its head; arguments and errors as for ``build_model``."""
    graph = Graph(_definition(model), num_classes)
    initialise(graph)
    return graph


def empty_model(definition: ModelDefinition, num_classes: int) -> Model:
    """Build the model of the head's task, to be filled with weights."""
    return (ClassificationModel if definition.is_classifier else DetectionModel)(definition, num_classes)


def initialise(graph: Graph) -> None:
    """Initialise convolutions as PyTorch does, derived ones by their own rule, and a detection head's biases."""
    for layer in graph.modules():
        if type(layer) is nn.Conv2d:
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
        elif isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    if isinstance(graph.last, DetectionHead):
        graph.last.reset_biases()


def _definition(model: str | ModelDefinition) -> ModelDefinition:
    return find_definition(model) if isinstance(model, str) else model
