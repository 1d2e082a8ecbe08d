"""State dicts of ResNets for images of 32 px (CIFAR) as weights of our models.

Others name them as torchvision names its ResNets, with three stages, ``layer1`` to ``layer3``. The classifier is
``linear`` or ``fc``; a projection is ``shortcut.0``, ``1`` or ``downsample.0``, ``1``, a convolution and its norm. A
shortcut without one (option A) takes every second pixel and sets zeros in front of its channels and behind them: a 1x1
convolution of stride 2 with weights 0 and 1, which our models get. A state dict does not say where the zeros are; those
whose classifier is ``linear`` are known to have as many in front as behind.

Source: ResNet (He et al., 2016), section 4.2, for the two options; the names in published state dicts.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from detect.errors import InputError
from detect.models.foreign.tensor_files import TensorFile
from detect.models.foreign.torchvision_models import Family, State, fit_family, residual_name
from detect.models.model import ClassificationModel

STAGES = {"stage1": "layer1", "stage2": "layer2", "c5": "layer3"}
"""Our rows to their stages."""
NORM_EPS = 1e-5
"""Of PyTorch's norms, and of these models'."""
_CONV = re.compile(r"layer1\.\d+\.conv1\.weight")


def _their_name(ours: str) -> str | None:
    match ours.split("."):
        case ["stem", "conv" | "norm" as kind, word]:
            return f"{'conv1' if kind == 'conv' else 'bn1'}.{word}"
        case [row, *rest] if row in STAGES:
            return residual_name(STAGES[row], rest)
        case ["classify", "linear", word]:
            return f"fc.{word}"
    return None


FAMILY = Family(
    "ResNet of CIFAR",
    "layer1.0.",
    "fc",
    ("resnet20", "resnet32", "resnet44", "resnet56", "resnet74", "resnet110"),
    _their_name,
)


def is_cifar_resnet(tensors: State) -> bool:
    """Whether a state dict has the three stages of such a network."""
    stages = {name.split(".")[0] for name in tensors if name.startswith("layer")}
    return stages == {"layer1", "layer2", "layer3"} and any(map(_CONV.fullmatch, tensors))


def load_cifar_resnet(file: TensorFile, path: Path, name: str | None = None) -> tuple[ClassificationModel, str]:
    """A model with the weights of a file, in float32, and what is assumed of it, for the user.

    Args:
        file: what was read.
        path: from where, for messages.
        name: the model; None tries the members of the family.

    Raises:
        InputError: the tensors fit none of our models, or shortcuts have no weights and nothing says what they do.
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
    return fit_family(tensors, FAMILY, path, name), note


def _as_torchvision(name: str) -> str:
    name = re.sub(r"^linear\.", "fc.", name)
    return re.sub(r"^(layer\d\.\d+)\.shortcut\.(\d)\.", r"\1.downsample.\2.", name)


def _option_a(tensors: State) -> State:
    """Projections that do what the shortcuts without weights do, in front of the second and the third stage."""
    found: State = {}
    for stage in ("layer2", "layer3"):
        weight = tensors.get(f"{stage}.0.conv1.weight")
        if weight is None or weight.ndim != 4 or not 0 < weight.shape[1] <= weight.shape[0]:
            continue  # told as missing, or of another shape
        outputs, inputs = weight.shape[:2]
        before = (outputs - inputs) // 2
        selection = torch.zeros(outputs, inputs, 1, 1)
        selection[before : before + inputs, :, 0, 0] = torch.eye(inputs)
        found |= {f"{stage}.0.downsample.0.weight": selection, **_still_norm(f"{stage}.0.downsample.1", outputs)}
    return found


def _still_norm(name: str, channels: int) -> dict[str, Tensor]:
    """A norm that changes nothing in evaluation."""
    ones, zeros = torch.ones(channels), torch.zeros(channels)
    values = {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones - NORM_EPS}
    return {f"{name}.{word}": value for word, value in values.items()}
