"""From a model's name to a model that can be trained."""

from __future__ import annotations

import math

from torch import nn

from detect.models.catalog import find_definition
from detect.models.classifier import ClassificationModel
from detect.models.definition import ModelDefinition
from detect.models.detector import DetectionModel
from detect.models.graph import Graph
from detect.models.heads import AnchorDetect
from detect.models.model import Model


def build_model(model: str | ModelDefinition, num_classes: int) -> DetectionModel:
    """A freshly initialised detection model.

    Args:
        model: a name (``detect.models.catalog.find_definition``) or a definition.
        num_classes: K.

    Raises:
        InputError: there is no such model, its YAML is wrong, or it does not end with a detection head.
    """
    built = DetectionModel(find_definition(model) if isinstance(model, str) else model, num_classes)
    initialise(built.graph)
    return built


def build_classifier(model: str | ModelDefinition, num_classes: int) -> ClassificationModel:
    """A freshly initialised classification model; arguments and errors as for ``build_model``."""
    built = ClassificationModel(find_definition(model) if isinstance(model, str) else model, num_classes)
    initialise(built.graph)
    return built


def empty_model(definition: ModelDefinition, num_classes: int) -> Model:
    """The model of the task that the definition's head decides, to be filled with weights.

    Raises:
        InputError: the definition cannot be built, or ends with neither kind of head.
    """
    return (ClassificationModel if definition.is_classifier else DetectionModel)(definition, num_classes)


def build_graph(model: str | ModelDefinition, num_classes: int) -> Graph:
    """A freshly initialised graph, whatever its head; arguments and errors as for ``build_model``."""
    graph = Graph(find_definition(model) if isinstance(model, str) else model, num_classes)
    initialise(graph)
    return graph


def initialise(graph: Graph) -> None:
    """Start values: PyTorch's for convolutions, a derived convolution's own, priors for a detection head's biases."""
    for layer in graph.modules():
        if type(layer) is nn.Conv2d:
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
        elif isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    if isinstance(graph.last, AnchorDetect):
        graph.last.reset_biases()
