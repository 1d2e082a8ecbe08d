"""ResNets of CIFAR as others keep them, built here in plain PyTorch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.checkpoint import load_checkpoint
from detect.models.foreign import classifiers
from detect.models.foreign.importing import ImportOptions, import_weights
from tests.models.foreign.torchvision_files import assert_computes_the_same


class Block(nn.Module):
    """A basic block; ``option`` B has a projection where the shape changes, A none."""

    def __init__(self, inputs: int, outputs: int, stride: int, option: str, projection: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.padding = (outputs - inputs) // 2
        self.projection = projection if option == "B" and stride > 1 else ""
        if self.projection:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            setattr(self, projection, nn.Sequential(convolution, nn.BatchNorm2d(outputs)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.projection:
            x = getattr(self, self.projection)(x)
        elif self.padding:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(x + y)


class ResNet(nn.Module):
    """6n + 2 layers."""

    def __init__(self, n: int, option: str, projection: str, classifier: str, width: int = 16) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        for stage in range(3):
            outputs = width * 2**stage
            inputs = outputs // 2 if stage else width
            first = Block(inputs, outputs, 2 if stage else 1, option, projection)
            others = [Block(outputs, outputs, 1, option, projection) for _ in range(n - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, *others))
        self.classifier = classifier
        setattr(self, classifier, nn.Linear(4 * width, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        y: Tensor = getattr(self, self.classifier)(x.mean(dim=(2, 3)))
        return y


def random_resnet(*args: object) -> ResNet:
    """With other weights and statistics in each channel of its norms."""
    torch.manual_seed(0)
    model = ResNet(*args)  # type: ignore[arg-type]
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.3, 0.8)
            nn.init.normal_(layer.bias, std=0.1)
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
    return model.eval()


def imported(folder: Path, content: object, legacy: bool = False, name: str = "x.th") -> list[str]:
    torch.save(content, folder / name, _use_new_zipfile_serialization=not legacy)
    return import_weights(ImportOptions(folder / name, folder / "out.pt", names="10"))


@pytest.mark.parametrize(
    ("n", "model", "option", "projection", "classifier"),
    [
        (3, "resnet20", "A", "", "linear"),
        (3, "resnet20", "B", "shortcut", "linear"),
        (5, "resnet32", "B", "downsample", "fc"),
        pytest.param(7, "resnet44", "A", "", "linear", marks=pytest.mark.slow),
    ],
)
def test_the_outputs_are_theirs(
    tmp_path: Path, n: int, model: str, option: str, projection: str, classifier: str
) -> None:
    """As published: a dictionary with a state dict of several GPUs' model in it, in the form before PyTorch 1.6."""
    theirs = random_resnet(n, option, projection, classifier)
    state = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    line, _ = imported(tmp_path, {"state_dict": state, "best_prec1": 91.7}, legacy=True)
    assert f"tensors of a ResNet for CIFAR, {model};" in line
    assert ("option A" in line) == (option == "A")
    found = load_checkpoint(tmp_path / "out.pt")
    assert (found.model.definition.name, found.image_size) == (model, 32)
    assert_computes_the_same(found.classifier, theirs)


def test_what_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "CIFAR", dataclasses.replace(classifiers.CIFAR, members=("resnet20", "resnet32")))
    with pytest.raises(InputError, match=r"shortcuts have no weights \(option A .* cannot be imported"):
        imported(tmp_path, random_resnet(3, "A", "", "fc").state_dict())
    wide = random_resnet(3, "B", "shortcut", "linear", 8).state_dict()
    with pytest.raises(
        InputError, match=r"fits none of resnet20, resnet32; .*conv1.weight is \(16, 3, 3, 3\), in the file"
    ):
        imported(tmp_path, wide, name="x.pt")
    with pytest.raises(InputError, match=r"fits none of resnet20, resnet32; nearest is resnet20"):
        imported(tmp_path, random_resnet(4, "B", "shortcut", "linear").state_dict(), name="x.bin")
    assert not (tmp_path / "out.pt").exists()
