"""Transfer of a checkpoint's weights to a model for other classes or of another size.

Letters: K classes, A anchors per cell, C input channels of the head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from detect.class_names import ClassMatch
from detect.models.model import DetectionModel, Model

_BOX_ROWS = 5
"""Outputs of an anchor in front of its classes: x, y, w, h, objectness."""


class Transfer(NamedTuple):
    """Numbers of tensors.

    Args:
        whole: copied unchanged.
        by_class: of the head, where only the rows of shared classes were copied.
        total: of the model, without its anchors.
    """

    whole: int
    by_class: int
    total: int


def transfer_weights(model: Model, given: Mapping[str, Tensor], classes: ClassMatch) -> Transfer:
    """Copy every weight whose name and shape agree, and of the head the rows of the classes that both models have.

    Args:
        model: target; a detector keeps its own anchors, which may have been fitted to its data. Rows of classes that
            the source lacks stay.
        given: weights of the source by name.
        classes: match of the classes of the source and ``model``.
    """
    own = model.state_dict()
    anchors = model.head.anchors_px if isinstance(model, DetectionModel) else None
    for name, buffer in model.named_buffers():
        if buffer is anchors:
            del own[name]
    layers = {} if classes.is_same else _class_layers(model)
    of_head = {name for tensors in layers.values() for name in tensors}
    # All but the head's tensors go by name and shape; those of the head go row by row, by class.
    fitting = {
        name: tensor
        for name, tensor in given.items()
        if name not in of_head and name in own and own[name].shape == tensor.shape
    }
    model.load_state_dict(fitting, strict=False)
    by_class = 0
    for tensors in layers.values():  # weights and biases of a layer are copied together or not at all
        if all(name in given and _fits(own[name], given[name], classes, model) for name in tensors):
            for name in tensors:
                _copy_rows(own[name], given[name], classes, model)
            by_class += len(tensors)
    return Transfer(len(fitting), by_class, len(own))


def _class_layers(model: Model) -> dict[str, list[str]]:
    """Return the names of the head's tensors, whose rows belong to classes, by layer."""
    row = f"graph.layers.{model.definition.rows[-1].name}."
    layers: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        if name.startswith(row):
            layers.setdefault(name.rpartition(".")[0], []).append(name)
    return layers


def _split_rows(tensor: Tensor, num_classes: int, model: Model) -> tuple[int, ...]:
    """Return the shape (A, 5 + K, C, 1, 1) of a detector's head, (1, K, C) of a classifier's; biases end before C."""
    is_detector = isinstance(model, DetectionModel)
    anchors = model.head.anchors_px.shape[1] if isinstance(model, DetectionModel) else 1
    return (anchors, num_classes + _BOX_ROWS * is_detector, *tensor.shape[1:])


def _fits(own: Tensor, given: Tensor, classes: ClassMatch, model: Model) -> bool:
    # the same anchors and input channels
    pairs = ((own, classes.target), (given, classes.source))
    counts = [math.prod(_split_rows(own, len(names), model)) == tensor.numel() for tensor, names in pairs]
    return own.shape[1:] == given.shape[1:] and all(counts)


@torch.no_grad()
def _copy_rows(own: Tensor, given: Tensor, classes: ClassMatch, model: Model) -> None:
    # (A, 5 + K, C, 1, 1) or (1, K, C): dimension 1 holds the box's rows, of a detector, then the classes
    receives = own.view(_split_rows(own, len(classes.target), model))
    gives = given.reshape(_split_rows(own, len(classes.source), model))
    before = receives.shape[1] - len(classes.target)
    receives[:, :before] = gives[:, :before]
    target_of = torch.from_numpy(classes.target_of)
    shared = (target_of >= 0).nonzero()[:, 0]
    receives[:, before + target_of[shared]] = gives[:, before + shared]
