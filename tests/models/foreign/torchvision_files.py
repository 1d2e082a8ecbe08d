"""torchvision's classifiers with random values, and their state dicts."""

from __future__ import annotations

import re
from functools import partial

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from detect.models.model import ClassificationModel

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

# torchvision builds ResNeXt-101 with 8 channels in each of 32 groups, or 4 in each of 64.
resnext101_32x4d = partial(torchvision.models.ResNet, Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4)


def torchvision_model(name: str, num_classes: int) -> nn.Module:
    """A model in evaluation mode, as it starts."""
    made = resnext101_32x4d if name == "resnext101_32x4d" else partial(torchvision.models.get_model, name)
    return made(num_classes=num_classes).eval()


def random_classifier(name: str, num_classes: int) -> nn.Module:
    """A model whose norms have other weights and statistics in each channel."""
    torch.manual_seed(0)
    model = torchvision_model(name, num_classes)
    scales = (0.5, 1.5) if name.startswith("dense") else (0.2, 0.6)  # the sum of all residual blocks stays near 1
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, *scales)
            nn.init.normal_(layer.bias, std=0.1)
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
    return model


def shapes_only(name: str, num_classes: int = 5) -> dict[str, Tensor]:
    """The state dict of a model, of tensors without values."""
    with torch.device("meta"):
        return torchvision_model(name, num_classes).state_dict()


def zeros(name: str, num_classes: int) -> dict[str, Tensor]:
    """The state dict of a model, all 0."""
    return {
        key: torch.zeros(tensor.shape, dtype=tensor.dtype) for key, tensor in shapes_only(name, num_classes).items()
    }


def as_older_versions(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A DenseNet's state dict as files of 2017 have it: no counters, and ``norm.1`` for ``norm1`` in dense layers."""
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): tensor
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }


def assert_computes_the_same(model: ClassificationModel, theirs: nn.Module) -> None:
    """The graph on normalised images, and the model on images in [0, 1]."""
    torch.manual_seed(1)
    images = torch.rand(2, 3, 64, 64)
    normalised = (images - MEAN) / STD
    model.eval()
    with torch.no_grad():
        expected = theirs(normalised)
        assert expected.std() > 0.01  # the images and the classes differ
        torch.testing.assert_close(model.graph(normalised), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)
