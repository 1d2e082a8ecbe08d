"""Weights to start from: what of a checkpoint fits a model is copied, and a line says what.

A detector can start from a classifier of its backbone. It normalises the images as the classifier does, by a row in
front (``detect.models.blocks.normalise``), so that its backbone computes the classifier's maps.

Letters: K classes, A anchors per cell (1 in a classifier), C input channels of the head.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from detect.class_names import ClassMatch, are_numbers, match_names, some_names
from detect.errors import InputError
from detect.models.build import empty_model
from detect.models.catalog import shipped_parts
from detect.models.checkpoint import Checkpoint
from detect.models.definition import ModelDefinition, normalisation_of, with_normalisation
from detect.models.heads import ClassOutputs
from detect.models.levels import rename_weights
from detect.models.model import ClassificationModel, DetectionModel, Model
from detect.models.surgery import becomes_spd, compare_rows, spd_model, with_downsample
from detect.runtime.logs import LOGGER


def normalised_as(definition: ModelDefinition, source: Model) -> ModelDefinition:
    """Return a detector's definition with the normalisation of the images that the weights of ``source`` expect."""
    if isinstance(source, ClassificationModel):
        if source.mean.any() or (source.std != 1).any():
            return with_normalisation(definition, {"mean": source.mean.tolist(), "std": source.std.tolist()})
        return definition
    args = normalisation_of(source.definition)
    return definition if args is None else with_normalisation(definition, args)


def copy_weights(model: Model, checkpoint: Checkpoint, names: tuple[str, ...], where: str) -> None:
    """Copy the weights that fit, rows of the head by class name ``names``, and log their number.

    Raises:
        InputError: a detector is to start a classifier, or no convolution fits. (Counters of norms fit every model,
            biases of the head every one with as many classes.)
    """
    if isinstance(model, DetectionModel) and isinstance(checkpoint.model, ClassificationModel):
        _copy_backbone(model, checkpoint.model, where)
    else:
        _copy_fitting(model, checkpoint, names, where)


def _copy_fitting(model: Model, checkpoint: Checkpoint, names: tuple[str, ...], where: str) -> None:
    source = checkpoint.classifier if isinstance(model, ClassificationModel) else checkpoint.detector
    classes = match_names(checkpoint.names, names)
    given = _given_weights(source, model, where)
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.ndim > 1}
    if not any(name in given and given[name].shape == parameter.shape for name, parameter in own.items()):
        raise InputError(
            f"{where}: no convolution of {source.definition.name} fits {model.definition.name}; leave out --model to "
            "train the checkpoint's own model"
        )
    copied = transfer_weights(model, given, classes)
    level = logging.INFO if copied.whole > copied.total / 2 else logging.WARNING
    by_class = f", {copied.by_class} more class by class" if copied.by_class else ""
    if not (copied.by_class > 0 or (classes.is_same and _head_fits(model, given))):
        carried = "the head does not fit, all start anew"
    else:
        carried = _carried_from_scenes(classes) if checkpoint.is_of_scenes else _carried(classes)
        carried += "".join(f"; level {name} starts anew" for name in _new_levels(model.definition, source.definition))
    LOGGER.log(
        *(level, "%s: %d of %d tensors fit and were copied%s; classes: %s"),
        *(where, copied.whole, copied.total, by_class, carried),
    )


def _copy_backbone(model: DetectionModel, source: ClassificationModel, where: str) -> None:
    """Copy a classifier's backbone; log its share, and the rows that compute something else in the detector."""
    with torch.device("meta"):  # the same rows as the classifier, whose normalisation is in none
        plain = empty_model(with_normalisation(model.definition, None), model.num_classes)
    copied = transfer_backbone(model, _given_weights(source, plain, where))
    name = model.definition.name
    if not copied.copied:
        raise InputError(
            f"{where}: no layer of the classifier {source.definition.name} fits the backbone of {name}; a detector "
            f"starts from a classifier of its own backbone and width{_classifier_of(name)}"
        )
    plain.load_state_dict(model.state_dict(), assign=True)
    same = compare_rows(plain, source)
    other = [row for row, is_same in same.items() if not is_same and row not in copied.anew]
    rows = {row.name for row in plain.definition.rows if row.section == "backbone"}
    parts = [
        f"{100 * copied.copied / copied.total:.1f} % of the backbone's {copied.total:,} weights copied",
        *(["its maps are the classifier's"] if all(same.get(row) for row in rows) else []),
        *([f"rows that start anew, in part or whole: {', '.join(copied.anew)}"] if copied.anew else []),
        *([f"rows that compute something else: {', '.join(other)}"] if other else []),
        "neck and head start anew",
    ]
    if normalisation_of(model.definition):
        parts.append("images are normalised as the classifier's")
    LOGGER.log(logging.WARNING if copied.anew or other else logging.INFO, "%s: %s", where, "; ".join(parts))


def _classifier_of(detector: str) -> str:
    """Return the name of the classifier of a detector's backbone in brackets; nothing for a model with a name of its
    own, which does not say what its backbone is called.
    """
    backbone, *options = detector.split("+")
    scales = [option for option in options if option.startswith(("width=", "depth="))]
    return f" ({'+'.join([backbone, *scales])})" if backbone in shipped_parts("backbone") else ""


def _given_weights(source: Model, model: Model, where: str) -> dict[str, Tensor]:
    """Return the weights by name, rearranged where a strided source starts a space-to-depth model, or other levels."""
    given, before, after = source.state_dict(), source.definition, model.definition
    has_other_levels = isinstance(source, DetectionModel) and before.rows[-1].inputs != after.rows[-1].inputs
    if becomes_spd(before, after):
        _, rearranged = spd_model(source, with_downsample(before, after) if has_other_levels else after)
        if rearranged.rows:
            LOGGER.log(logging.WARNING if rearranged.differing else logging.INFO, "%s: %s", where, rearranged.line)
        given |= rearranged.state
    return rename_weights(given, before, after, model.state_dict()) if has_other_levels else given


def _new_levels(definition: ModelDefinition, source: ModelDefinition) -> tuple[str, ...]:
    """Return the levels that the source's head has not, if it has others of the model's."""
    own, given = definition.rows[-1].inputs, source.rows[-1].inputs
    return tuple(name for name in own if name not in given) if set(own) & set(given) else ()


def _head_fits(model: Model, given: Mapping[str, Tensor]) -> bool:
    row = f"graph.layers.{model.definition.rows[-1].name}."
    own = {row + name: tensor for name, tensor in model.graph.last.named_parameters()}
    fits = [given[name].shape == tensor.shape for name, tensor in own.items() if name in given]
    return bool(fits) and all(fits)


def _carried_from_scenes(classes: ClassMatch) -> str:
    """Describe the classes of a start, whose own were of use to its training only."""
    if not classes.shared:
        return "their outputs start anew"
    return (
        f"{len(classes.shared)} carried over by name ({some_names(classes.shared)}), the outputs of others start anew"
    )


def _carried(classes: ClassMatch) -> str:
    """List the classes that keep their weights, start anew and are dropped."""
    if classes.is_same and not classes.respelled:
        return f"all {len(classes.target)} carried over"
    parts = [f"{len(classes.shared)} carried over by name"]
    if classes.shared:
        parts[0] += f" ({some_names(classes.shared)})"
    if classes.only_target:
        parts.append(f"{len(classes.only_target)} start anew ({some_names(classes.only_target)})")
    if classes.only_source:
        parts.append(f"{len(classes.only_source)} dropped ({some_names(classes.only_source)})")
    if classes.respelled:
        parts.append(f"{', '.join(classes.respelled[:3])}, case and blanks apart")
    if not classes.shared and are_numbers(classes.source):
        parts.append("the checkpoint has numbers instead of names (detect import --names gives it some)")
    elif not classes.shared and are_numbers(classes.target):
        parts.append("the data has numbers instead of names (names: in its config gives it some)")
    return "; ".join(parts)


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
