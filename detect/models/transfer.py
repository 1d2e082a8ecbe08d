"""Transfer of a checkpoint's weights to a model for other classes or of another size, or to a detector.

Letters: K classes, A anchors per cell (1 in a classifier), C input channels of the head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from detect.class_names import ClassMatch
from detect.models.heads import ClassOutputs
from detect.models.model import ClassificationModel, DetectionModel, Model


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
            own.pop(name, None)  # those of a head without anchors are in no state dict
    layers = {} if classes.is_same else _class_layers(model)
    of_classes = {name for layer in layers for name in _tensors_of(layer, own)}
    # All but the tensors of classes go by name and shape; those go row by row, by class.
    fitting = {
        name: tensor
        for name, tensor in given.items()
        if name not in of_classes and name in own and own[name].shape == tensor.shape
    }
    model.load_state_dict(fitting, strict=False)
    by_class = 0
    for layer, outputs in layers.items():  # weights and biases of a layer are copied together or not at all
        names = _tensors_of(layer, own)
        if all(name in given and _fits(own[name], given[name], classes, outputs) for name in names):
            for name in names:
                _copy_rows(own[name], given[name], classes, outputs)
            by_class += len(names)
    return Transfer(len(fitting), by_class, len(own))


class BackboneTransfer(NamedTuple):
    """Result of ``transfer_backbone``.

    Args:
        copied: weights that were copied.
        total: weights of the backbone.
        anew: names of its rows of which some weights, or all, did not fit.
    """

    copied: int
    total: int
    anew: tuple[str, ...]


def transfer_backbone(model: Model, given: Mapping[str, Tensor]) -> BackboneTransfer:
    """Copy a backbone's weights by name and shape, a convolution and its norm together or not at all."""
    own = model.state_dict()
    rows = [row.name for row in model.definition.rows if row.section == "backbone"]
    names = {name: row for row in rows for name in own if name.startswith(f"graph.layers.{row}.")}
    # The norm of a convolution that does not fit has the statistics of other channels.
    unfit = {_parent(name) for name in names if name not in given or given[name].shape != own[name].shape}
    fitting = {name: given[name] for name in names if _parent(name) not in unfit}
    model.load_state_dict(fitting, strict=False)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if name in names}
    copied = sum(size for name, size in sizes.items() if name in fitting)
    anew = {row for name, row in names.items() if name not in fitting}
    return BackboneTransfer(copied, sum(sizes.values()), tuple(row for row in rows if row in anew))


def _parent(name: str) -> str:
    """Return the name of the block that holds a tensor's layer: ``c2.0`` of ``c2.0.conv.weight``."""
    return name.rsplit(".", 2)[0]


def _class_layers(model: Model) -> dict[str, ClassOutputs]:
    """Return the head's layers with outputs that belong to classes, by name in the model."""
    assert isinstance(model, (DetectionModel, ClassificationModel)), "there are two tasks"
    row = model.definition.rows[-1].name
    return {f"graph.layers.{row}.{outputs.layer}": outputs for outputs in model.head.class_outputs}


def _tensors_of(layer: str, state: dict[str, Tensor]) -> list[str]:
    return [name for name in state if name.rpartition(".")[0] == layer]


def _split_rows(tensor: Tensor, num_classes: int, outputs: ClassOutputs) -> tuple[int, ...]:
    """Return the shape (A, others + K, C, 1, 1) of a head's weights; biases end before C."""
    return (outputs.groups, outputs.others + num_classes, *tensor.shape[1:])


def _fits(own: Tensor, given: Tensor, classes: ClassMatch, outputs: ClassOutputs) -> bool:
    # the same anchors and input channels
    pairs = ((own, classes.target), (given, classes.source))
    counts = [math.prod(_split_rows(own, len(names), outputs)) == tensor.numel() for tensor, names in pairs]
    return own.shape[1:] == given.shape[1:] and all(counts)


@torch.no_grad()
def _copy_rows(own: Tensor, given: Tensor, classes: ClassMatch, outputs: ClassOutputs) -> None:
    # (A, others + K, C, 1, 1): dimension 1 holds a detector's box and objectness, if any, then the classes
    receives = own.view(_split_rows(own, len(classes.target), outputs))
    gives = given.reshape(_split_rows(own, len(classes.source), outputs))
    before = outputs.others
    receives[:, :before] = gives[:, :before]
    target_of = torch.from_numpy(classes.target_of)
    shared = (target_of >= 0).nonzero()[:, 0]
    receives[:, before + target_of[shared]] = gives[:, before + shared]
