"""State dicts of classifiers as weights of our models: torchvision's ResNet, ResNeXt and DenseNet, ResNets of CIFAR.

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

Older files of torchvision have ``norm.I`` and ``conv.I`` in dense layers. The norms' batch counters have no use in a
trained model and are dropped.

ResNets for images of 32 px (CIFAR) are named like torchvision's, with three stages, ``layer1`` to ``layer3``. The
classifier is ``linear`` or ``fc``; a projection is ``shortcut.0``, ``1`` or ``downsample.0``, ``1``, a convolution and
its norm. A shortcut without one (option A) takes every second pixel and sets zeros in front of its channels and behind
them: a 1x1 convolution of stride 2 with weights 0 and 1, which our models get. A state dict does not have the place of
the zeros; networks whose classifier is ``linear`` are known to have the same number in front and behind.

Source: torchvision 0.29, the names in the state dicts of its models; ResNet (He et al., 2016), section 4.2, for the two
options, and the names in published state dicts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from detect.errors import InputError
from detect.models.catalog import find_definition
from detect.models.checkpoint import load_weights
from detect.models.foreign.members import Misfit, fitting_member
from detect.models.foreign.tensor_files import COUNTER, State, TensorFile
from detect.models.model import ClassificationModel

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of red, green and blue in [0, 1], in training and tests of all of torchvision's models."""
NORM_EPS = 1e-5
"""Epsilon of the norms of these models, PyTorch's default."""

_OLD_DENSE = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.(\d\.)")
_CIFAR_CONV = re.compile(r"layer1\.\d+\.conv1\.weight")
_RESIDUAL_STAGES = {"c2": 1, "c3": 2, "c4": 3, "c5": 4}
_DENSE_STAGES = {"c2": 1, "c3": 2, "c4": 3, "stage5": 4}
_CIFAR_STAGES = {"stage1": 1, "stage2": 2, "c5": 3}
_RESIDUAL_KIND = {"conv": "conv", "norm": "bn"}
_PROJECTION = {"conv": 0, "norm": 1}


@dataclass(frozen=True)
class Family:
    """Models whose state dicts follow one naming scheme.

    Args:
        title: name in messages.
        mark: prefix of some names in each of its state dicts, and of none of other families.
        classifier: name of the last layer in the file.
        members: our models that are tried by default; of several that are equally near, a message names the first.
        their_name: maps a name in ``Graph.layers`` to the file's, or to None.
    """

    title: str
    mark: str
    classifier: str
    members: tuple[str, ...]
    their_name: Callable[[str], str | None]


def _resnet_name(ours: str) -> str | None:
    match ours.split("."):
        case ["stem", "conv", "conv" | "norm" as kind, word]:
            return f"{_RESIDUAL_KIND[kind]}1.{word}"
        case [row, *rest] if row in _RESIDUAL_STAGES:
            return _residual_block_name(f"layer{_RESIDUAL_STAGES[row]}", rest)
        case ["classify", "linear", word]:
            return f"fc.{word}"
    return None


def _cifar_resnet_name(ours: str) -> str | None:
    match ours.split("."):
        case ["stem", "conv" | "norm" as kind, word]:
            return f"{_RESIDUAL_KIND[kind]}1.{word}"
        case [row, *rest] if row in _CIFAR_STAGES:
            return _residual_block_name(f"layer{_CIFAR_STAGES[row]}", rest)
        case ["classify", "linear", word]:
            return f"fc.{word}"
    return None


def _residual_block_name(stage: str, words: list[str]) -> str | None:
    """The file's name of a tensor in a stage; ``words`` are those of our name behind the row's."""
    match words:
        case ["stage", block, "layers", i, "conv" | "norm" as kind, word]:
            return f"{stage}.{block}.{_RESIDUAL_KIND[kind]}{int(i) + 1}.{word}"
        case ["stage", block, "shortcut", "conv" | "norm" as kind, word]:
            return f"{stage}.{block}.downsample.{_PROJECTION[kind]}.{word}"
    return None


def _densenet_name(ours: str) -> str | None:
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


TORCHVISION = (
    Family(
        "ResNet",
        "layer1.0.",
        "fc",
        ("resnext50", "resnext101", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
        _resnet_name,
    ),
    Family(
        "DenseNet",
        "features.denseblock1.",
        "classifier",
        ("densenet121", "densenet161", "densenet169", "densenet201"),
        _densenet_name,
    ),
)
CIFAR = Family(
    "ResNet of CIFAR",
    "layer1.0.",
    "fc",
    ("resnet20", "resnet32", "resnet44", "resnet56", "resnet74", "resnet110"),
    _cifar_resnet_name,
)


# ---------------------------------------------------------------------------------------------------- torchvision


def torchvision_family(tensors: State) -> Family | None:
    """The family of a state dict's names, if any."""
    return next((family for family in TORCHVISION if any(key.startswith(family.mark) for key in tensors)), None)


def load_torchvision(file: TensorFile, path: Path, name: str | None = None) -> ClassificationModel:
    """Build a model with the weights of a torchvision classifier, in float32, with ImageNet's mean and deviation.

    Without a name the members of the family are tried. ``path`` is for messages. ``InputError`` if the tensors are not
    named like those of torchvision's ResNet, ResNeXt or DenseNet, do not fit, are not finite, or are negative
    where they are variances.
    """
    family = torchvision_family(file.tensors)
    if family is None:
        found = next(iter(file.tensors))[:80]
        marks = " or ".join(f"{each.mark!r}" for each in TORCHVISION)
        raise InputError(f"{path}: {found!r} and the others are no weights of torchvision; none starts with {marks}")
    return _fit_family(file.tensors, family, path, name)


# ---------------------------------------------------------------------------------------------------------- CIFAR


def is_cifar_resnet(tensors: State) -> bool:
    """True for a state dict with exactly the three stages of such a network."""
    stages = {name.split(".")[0] for name in tensors if name.startswith("layer")}
    return stages == {"layer1", "layer2", "layer3"} and any(map(_CIFAR_CONV.fullmatch, tensors))


def load_cifar_resnet(file: TensorFile, path: Path, name: str | None = None) -> tuple[ClassificationModel, str]:
    """Build a model with the weights of a file, in float32, and describe the assumptions for the user.

    Arguments as ``load_torchvision``.

    Raises:
        InputError: the tensors fit none of our models, or shortcuts have no weights and their zeros no known place.
    """
    tensors = {_as_torchvision(key): tensor for key, tensor in file.tensors.items()}
    if len(tensors) < len(file.tensors):
        raise InputError(f"{path}: has the same tensors under two names")
    note = "images normalised by ImageNet's mean and deviation, which is assumed, for the file does not say it"
    if not any(".downsample." in key for key in tensors):
        if "linear.weight" not in file.tensors:
            raise InputError(
                f"{path}: is a ResNet of CIFAR whose shortcuts have no weights (option A of its paper), and nothing "
                "says where they set zeros; our models have 1x1 convolutions there, so it cannot be imported"
            )
        tensors |= _option_a(tensors)
        note = f"shortcuts without weights (option A, as many zeros in front as behind) became 1x1 convolutions; {note}"
    return _fit_family(tensors, CIFAR, path, name), note


def _as_torchvision(name: str) -> str:
    name = re.sub(r"^linear\.", "fc.", name)
    return re.sub(r"^(layer\d\.\d+)\.shortcut\.(\d)\.", r"\1.downsample.\2.", name)


def _option_a(tensors: State) -> State:
    """Projections equal to the shortcuts without weights, in front of the second and the third stage."""
    found: State = {}
    for stage in ("layer2", "layer3"):
        weight = tensors.get(f"{stage}.0.conv1.weight")
        if weight is None or weight.ndim != 4 or not 0 < weight.shape[1] <= weight.shape[0]:
            continue  # _translate reports it
        outputs, inputs = weight.shape[:2]
        before = (outputs - inputs) // 2
        selection = torch.zeros(outputs, inputs, 1, 1)
        selection[before : before + inputs, :, 0, 0] = torch.eye(inputs)
        found |= {f"{stage}.0.downsample.0.weight": selection, **_identity_norm(f"{stage}.0.downsample.1", outputs)}
    return found


def _identity_norm(name: str, channels: int) -> State:
    """A norm that changes nothing in evaluation."""
    ones, zeros = torch.ones(channels), torch.zeros(channels)
    values = {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones - NORM_EPS}
    return {f"{name}.{word}": value for word, value in values.items()}


# ------------------------------------------------------------------------------------------------------- the fit


def _fit_family(tensors: State, family: Family, path: Path, name: str | None) -> ClassificationModel:
    """The member of a family, or the named model, that a state dict fits, with its weights."""
    tensors = _normalise(tensors, path)
    num_classes = _num_classes(tensors, family.classifier, path)

    def translate(candidate: str) -> tuple[tuple[ClassificationModel, State], list[str]]:
        with torch.device("meta"):
            model = ClassificationModel(find_definition(candidate), num_classes)
        state, complaints = _translate(model, tensors, family)
        return (model, state), complaints

    found = fitting_member(family.members, name, path, translate)
    if isinstance(found, Misfit):
        raise InputError(
            f"{path}: fits none of {', '.join(family.members)}; nearest is {found.name}, "
            f"misfits: {found.num_misfits}, the first: {found.complaint}"
        )
    return _filled(*found, path)


def _normalise(tensors: State, path: Path) -> State:
    """The tensors in float32 under the names of today's torchvision, without the counters."""
    found: State = {}
    for key, tensor in tensors.items():
        name = _OLD_DENSE.sub(r"\1\2", key)
        if name in found:
            raise InputError(f"{path}: has {name[:80]} twice, once in the form of older files")
        if not key.endswith(COUNTER):
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
    """The tensors under our names, and a complaint for each that is missing, superfluous or of another shape."""
    state, complaints, left = State(), [], dict(tensors)
    for ours, own in model.graph.layers.state_dict().items():
        if ours.endswith(COUNTER):
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
    filled = ClassificationModel(model.definition, model.num_classes)
    load_weights(filled, {**filled.state_dict(), **state}, path)
    filled.normalise_by(IMAGENET_MEAN, IMAGENET_STD)
    return filled
