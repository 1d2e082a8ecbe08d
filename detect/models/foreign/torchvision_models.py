"""State dicts of torchvision's ResNet, ResNeXt and DenseNet as weights of our models.

Tensors are found by name. ``L`` counts stages, ``B`` blocks and layers, ``I`` the convolutions in one; theirs count
from 1, but for the blocks of ResNet; ``norm`` is a batch norm:

=====================================================  =======================================  ========================
theirs                                                 ours, ``rows`` are c2, c3, c4 and c5     meaning
=====================================================  =======================================  ========================
``conv1``, ``bn1``                                     ``stem.conv.conv``, ``norm``             ResNet: its stem
``layerL.B.convI``, ``bnI``                            ``row.stage.B.layers.I.conv``, ``norm``  a residual block
``layerL.B.downsample.0``, ``1``                       ``row.stage.B.shortcut.conv``, ``norm``  its projection
``fc``                                                 ``classify.linear``                      its classifier
``features.conv0``, ``norm0``                          ``stem.conv.conv``, ``norm``             DenseNet: its stem
``features.denseblockL.denselayerB.normI``, ``convI``  ``row.stage.0.layers.B.I.norm``,         a dense layer; the last
                                                       ``conv``                                 row is ``stage5``
``features.transitionL.norm``, ``conv``                ``row.stage.1.norm``, ``conv``           the stage's transition
``features.norm5``                                     ``c5.norm``                              the last norm
``classifier``                                         ``classify.linear``                      its classifier
=====================================================  =======================================  ========================

Files of older versions have ``norm.I`` and ``conv.I`` in dense layers. The norms' counters of batches mean nothing to a
trained model, and are not taken.

Source: torchvision 0.29, the names in the state dicts of its models.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detect.errors import InputError
from detect.models.catalog import find_definition
from detect.models.checkpoint import load_weights
from detect.models.foreign.tensor_files import TensorFile
from detect.models.model import ClassificationModel

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in [0, 1]: what torchvision trains and tests all of these models with."""
State = dict[str, Tensor]

_COUNTER = ".num_batches_tracked"
_OLD_DENSE = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.(\d\.)")
_RESIDUAL_STAGES = {"c2": 1, "c3": 2, "c4": 3, "c5": 4}
_DENSE_STAGES = {"c2": 1, "c3": 2, "c4": 3, "stage5": 4}
_RESIDUAL_KIND = {"conv": "conv", "norm": "bn"}
_PROJECTION = {"conv": 0, "norm": 1}


@dataclass(frozen=True)
class Family:
    """Models that torchvision names alike.

    Args:
        title: what it is called.
        mark: what some names in each of its state dicts start with, and none of other families.
        classifier: its last layer, in theirs.
        members: our models that are tried when none is named; of several that are equally near, the first is told.
        their_name: a name in ``Graph.layers`` to theirs, or None where they have none.
    """

    title: str
    mark: str
    classifier: str
    members: tuple[str, ...]
    their_name: Callable[[str], str | None]


def residual_name(stage: str, words: list[str]) -> str | None:
    """Their name of a tensor in a stage of residual blocks.

    Args:
        stage: their name of it.
        words: of our name, behind the row's.
    """
    match words:
        case ["stage", block, "layers", i, "conv" | "norm" as kind, word]:
            return f"{stage}.{block}.{_RESIDUAL_KIND[kind]}{int(i) + 1}.{word}"
        case ["stage", block, "shortcut", "conv" | "norm" as kind, word]:
            return f"{stage}.{block}.downsample.{_PROJECTION[kind]}.{word}"
    return None


def _residual_name(ours: str) -> str | None:
    match ours.split("."):
        case ["stem", "conv", "conv" | "norm" as kind, word]:
            return f"{_RESIDUAL_KIND[kind]}1.{word}"
        case [row, *rest] if row in _RESIDUAL_STAGES:
            return residual_name(f"layer{_RESIDUAL_STAGES[row]}", rest)
        case ["classify", "linear", word]:
            return f"fc.{word}"
    return None


def _dense_name(ours: str) -> str | None:
    match ours.split("."):
        case ["stem", "conv", "conv" | "norm" as kind, word]:
            return f"features.{kind}0.{word}"
        case [row, "stage", "0", "layers", layer, i, "conv" | "norm" as kind, word] if row in _DENSE_STAGES:
            where = f"features.denseblock{_DENSE_STAGES[row]}.denselayer{int(layer) + 1}"
            return f"{where}.{kind}{int(i) + 1}.{word}"
        case [row, "stage", "1", "conv" | "norm" as kind, word] if row in _DENSE_STAGES:
            return f"features.transition{_DENSE_STAGES[row]}.{kind}.{word}"
        case ["c5", "norm", word]:
            return f"features.norm5.{word}"
        case ["classify", "linear", word]:
            return f"classifier.{word}"
    return None


FAMILIES = (
    Family(
        "ResNet",
        "layer1.0.",
        "fc",
        ("resnext50", "resnext101", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
        _residual_name,
    ),
    Family(
        "DenseNet",
        "features.denseblock1.",
        "classifier",
        ("densenet121", "densenet161", "densenet169", "densenet201"),
        _dense_name,
    ),
)


def torchvision_family(tensors: State) -> Family | None:
    """The family that a state dict's names are of, if any."""
    return next((family for family in FAMILIES if any(key.startswith(family.mark) for key in tensors)), None)


def load_torchvision(file: TensorFile, path: Path, name: str | None = None) -> ClassificationModel:
    """A model with the weights of a torchvision classifier, in float32, with ImageNet's mean and deviation.

    Args:
        file: what was read.
        path: from where, for messages.
        name: the model; None tries the members of the family.

    Raises:
        InputError: the tensors are not named like those of torchvision's ResNet, ResNeXt or DenseNet, do not fit, are
            not finite, or are negative where they are variances.
    """
    family = torchvision_family(file.tensors)
    if family is None:
        found = next(iter(file.tensors))[:80]
        marks = " or ".join(f"{each.mark!r}" for each in FAMILIES)
        raise InputError(f"{path}: {found!r} and the others are no weights of torchvision; none starts with {marks}")
    return fit_family(file.tensors, family, path, name)


def fit_family(tensors: State, family: Family, path: Path, name: str | None) -> ClassificationModel:
    """The member of a family that a state dict fits, with its weights, and ImageNet's mean and deviation.

    Args:
        tensors: under the family's names.
        family: whose names they are.
        path: from where, for messages.
        name: the model; None tries all members.

    Raises:
        InputError: they do not fit, are not finite, or are negative where they are variances.
    """
    tensors = _today(tensors, path)
    num_classes = _num_classes(tensors, family.classifier, path)
    misfits = []
    for candidate in family.members if name is None else (name,):
        with torch.device("meta"):
            model = ClassificationModel(find_definition(candidate), num_classes)
        state, complaints = _translate(model, tensors, family)
        if not complaints:
            return _filled(model, state, path)
        misfits.append((len(complaints), candidate, complaints[0]))
    count, nearest, complaint = min(misfits, key=lambda misfit: misfit[0])
    if name is not None:
        raise InputError(f"{path}: weights of another model than {name}: {complaint}")
    members = ", ".join(family.members)
    raise InputError(f"{path}: fits none of {members}; nearest is {nearest}, misfits: {count}, the first: {complaint}")


def _today(tensors: State, path: Path) -> State:
    """The tensors in float32 under the names of today's torchvision, without the counters."""
    found: State = {}
    for key, tensor in tensors.items():
        name = _OLD_DENSE.sub(r"\1\2", key)
        if name in found:
            raise InputError(f"{path}: has {name[:80]} twice, once in the form of older files")
        if not key.endswith(_COUNTER):
            found[name] = tensor.float() if tensor.is_floating_point() else tensor
    return found


def _num_classes(tensors: State, classifier: str, path: Path) -> int:
    """K, from the weights of the last layer, or from its biases if there are none."""
    weight, bias = tensors.get(f"{classifier}.weight"), tensors.get(f"{classifier}.bias")
    for tensor, ndim in ((weight, 2), (bias, 1)):
        if tensor is not None and tensor.ndim == ndim and len(tensor):
            return len(tensor)
    raise InputError(f"{path}: has no {classifier}.weight of (classes, channels), so it is no classifier")


def _translate(model: ClassificationModel, tensors: State, family: Family) -> tuple[State, list[str]]:
    """The tensors under our names, and a complaint for each that is missing, of another shape, or too many."""
    state, complaints, left = State(), [], dict(tensors)
    for ours, own in model.graph.layers.state_dict().items():
        if ours.endswith(_COUNTER):
            continue
        theirs = family.their_name(ours)
        found = None if theirs is None else left.pop(theirs, None)
        if theirs is None:
            complaints.append(f"torchvision's {family.title} has no {ours}")
        elif found is None:
            complaints.append(f"the file has no {theirs}")
        elif found.shape != own.shape:
            complaints.append(f"{theirs} is {tuple(own.shape)}, in the file {tuple(found.shape)}")
        else:
            state[f"graph.layers.{ours}"] = found
    complaints += [f"the model has no {theirs[:80]!r} of {tuple(left[theirs].shape)}" for theirs in sorted(left)]
    return state, complaints


def _filled(model: ClassificationModel, state: State, path: Path) -> ClassificationModel:
    """The model of the same definition, with the file's weights."""
    filled = ClassificationModel(model.definition, model.num_classes)
    load_weights(filled, {**filled.state_dict(), **state}, path)
    filled.normalise_by(IMAGENET_MEAN, IMAGENET_STD)
    return filled
