"""From a model's name to a model that can be trained."""

from __future__ import annotations

import math

from torch import nn

from detect.models.definition import ModelDefinition, find_definition
from detect.models.detector import DetectionModel


def build_model(model: str | ModelDefinition, num_classes: int) -> DetectionModel:
    """A freshly initialised detection model.

    Args:
        model: a shipped name, a YAML file, or a definition.
        num_classes: K.

    Raises:
        InputError: there is no such model, or its YAML is wrong.
    """
    definition = find_definition(model) if isinstance(model, str) else model
    built = DetectionModel(definition, num_classes)
    initialise(built)
    return built


def initialise(model: DetectionModel) -> None:
    """Start values: PyTorch's own for convolutions, priors for the head's biases."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
    model.head.reset_biases()
