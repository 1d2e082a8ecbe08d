"""State dicts of torchvision's classifiers: found by name, computing the same, and refused with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.build import build_graph
from detect.models.foreign import classifiers
from detect.models.foreign.classifiers import TORCHVISION, load_torchvision, torchvision_family
from detect.models.foreign.tensor_files import TensorFile, read_tensors
from detect.models.model import ClassificationModel
from tests.models.foreign.torchvision_files import (
    as_older_versions,
    assert_computes_the_same,
    random_classifier,
    shapes_only,
    torchvision_model,
)
from tests.models.foreign.yolov5_files import random_model, their_state

State = dict[str, Tensor]


def load(state: State, name: str | None = None) -> ClassificationModel:
    return load_torchvision(TensorFile(state, None), Path("x.pth"), name)


# ------------------------------------------------------------------------------------------------ what is taken


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("resnet18", "resnet18"),
        pytest.param("resnet34", "resnet34", marks=pytest.mark.slow),
        pytest.param("resnet50", "resnet50", marks=pytest.mark.slow),
        pytest.param("resnet101", "resnet101", marks=pytest.mark.slow),
        pytest.param("resnet152", "resnet152", marks=pytest.mark.slow),
        ("resnext50_32x4d", "resnext50"),
        pytest.param("resnext101_32x4d", "resnext101", marks=pytest.mark.slow),
        ("densenet121", "densenet121"),
        pytest.param("densenet161", "densenet161", marks=pytest.mark.slow),
        pytest.param("densenet169", "densenet169", marks=pytest.mark.slow),
        pytest.param("densenet201", "densenet201", marks=pytest.mark.slow),
        # Not tried, but can be named: weights/README.md.
        ("wide_resnet50_2", "resnet50+ratio=0.5"),
        pytest.param("wide_resnet101_2", "resnet101+ratio=0.5", marks=pytest.mark.slow),
        pytest.param("resnext101_32x8d", "resnext101+ratio=1.0", marks=pytest.mark.slow),
        pytest.param("resnext101_64x4d", "resnext101+ratio=1.0+groups=64", marks=pytest.mark.slow),
    ],
)
def test_names_and_shapes_are_theirs(theirs: str, ours: str) -> None:
    state = shapes_only(theirs)
    family = torchvision_family(state)
    assert family is not None
    assert (ours in family.members) == ("+" not in ours)
    with torch.device("meta"):
        own, reference = build_graph(ours, 5).layers, torchvision_model(theirs, 5)
    assert {family.their_name(name): tensor.shape for name, tensor in own.state_dict().items()} == {
        name: tensor.shape for name, tensor in state.items()
    }
    found = {family.their_name(name): how for name, how in convolutions(own).items()}
    assert found == convolutions(reference)


def convolutions(model: nn.Module) -> dict[str, tuple[object, ...]]:
    """Stride, padding and groups of each convolution."""
    layers = {f"{name}.weight": layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    return {name: (layer.stride, layer.padding, layer.groups) for name, layer in layers.items()}


@pytest.mark.parametrize(
    ("theirs", "ours", "file"),
    [
        # resnet18 and densenet121 go through tools/import_weights.py: tests/tools/test_import_weights.py.
        pytest.param("resnet50", "resnet50", "x.pth", marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", "resnext50", "x.safetensors", marks=pytest.mark.slow),
        pytest.param("resnext101_32x4d", "resnext101", "x.pth", marks=pytest.mark.slow),
        pytest.param("densenet161", "densenet161", "x.pth", marks=pytest.mark.slow),
    ],
)
def test_computes_what_torchvision_does(tmp_path: Path, theirs: str, ours: str, file: str) -> None:
    reference = random_classifier(theirs, 5)
    (save_file if file.endswith("s") else torch.save)(reference.state_dict(), tmp_path / file)
    model = load_torchvision(read_tensors(tmp_path / file), tmp_path / file)
    assert (model.definition.name, model.num_classes) == (ours, 5)
    assert_computes_the_same(model, reference)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("wide_resnet50_2", "resnet50+ratio=0.5"), ("resnext101_64x4d", "resnext101+ratio=1.0+groups=64")],
)
def test_other_widths_can_be_named(theirs: str, ours: str) -> None:
    reference = random_classifier(theirs, 5)
    assert_computes_the_same(load(reference.state_dict(), ours), reference)


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    return random_classifier("resnet18", 5)


@pytest.fixture
def state(resnet18: nn.Module) -> State:
    return dict(resnet18.state_dict())


@pytest.fixture(scope="module")
def expected(resnet18: nn.Module) -> State:
    return load(dict(resnet18.state_dict())).state_dict()


WRITERS: dict[str, Callable[[Path, State], None]] = {
    "in-a-checkpoint.pth": lambda path, state: torch.save({"model": state, "epoch": 3, "optimizer": {}}, path),
    "double-without-counters.safetensors": lambda path, state: save_file(
        {name: tensor.double() for name, tensor in state.items() if "num_batches" not in name}, path
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("file", WRITERS)
def test_read_back_bit_equal(tmp_path: Path, state: State, expected: State, file: str) -> None:
    WRITERS[file](tmp_path / file, state)
    found = load_torchvision(read_tensors(tmp_path / file), tmp_path / file, "resnet18").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    assert torch.equal(found["graph.layers.c5.stage.0.shortcut.conv.weight"], state["layer4.0.downsample.0.weight"])


def test_a_whole_model(tmp_path: Path, resnet18: nn.Module, expected: State) -> None:
    """Pickled as an object; its classes are not run."""
    torch.save(resnet18, tmp_path / "x.pt")
    found = load_torchvision(read_tensors(tmp_path / "x.pt"), tmp_path / "x.pt").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.slow
def test_older_names_of_densenet() -> None:
    reference = random_classifier("densenet121", 5)
    older = as_older_versions(reference.state_dict())
    assert "features.denseblock1.denselayer1.norm.1.weight" in older
    assert_computes_the_same(load(older), reference)


def test_order_does_not_matter(state: State, expected: State) -> None:
    found = load(dict(reversed(state.items())), "resnet18").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_a_model_that_is_named(state: State) -> None:
    assert load(state, "resnet18").definition.name == "resnet18"
    for name, message in [
        ("resnet50", r"layer1\.0\.conv1\.weight is \(64, 64, 1, 1\), in the file \(64, 64, 3, 3\)$"),
        ("resnet34", r"the file has no layer1\.2\.conv1\.weight$"),
        ("resnet10", r"the model has no 'layer1\.1\.bn1\.bias' of \(64,\)$"),
        ("vgg16-bn", r"torchvision's ResNet has no "),
    ]:
        with pytest.raises(InputError, match=rf"^x\.pth: weights of another model than {name}: {message}"):
            load(state, name)
    with pytest.raises(InputError, match=r"the last row must be Classify, found AnchorDetect; yolov5n is a detector"):
        load(state, "yolov5n")


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.fixture
def few_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two members alone of ResNet, and one of DenseNet."""
    resnet, densenet = (
        dataclasses.replace(family, members=members)
        for family, members in zip(TORCHVISION, (("resnext50", "resnet18"), ("densenet121",)), strict=True)
    )
    monkeypatch.setattr(classifiers, "TORCHVISION", (resnet, densenet))


@pytest.mark.usefixtures("few_members")
def test_truncated(state: State) -> None:
    """Without the last block, 2 * 6 tensors less 2 counters; without any last layer it is no classifier."""
    cut = {name: tensor for name, tensor in state.items() if not name.startswith("layer4.1.")}
    message = r"nearest is resnet18, misfits: 10, the first: the file has no layer4\.1\.conv1\.weight$"
    with pytest.raises(InputError, match=message):
        load(cut)
    without = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    with pytest.raises(
        InputError, match=r"^x\.pth: has no fc\.weight of \(classes, channels\), so it is no classifier$"
    ):
        load(without)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"layer5.0.conv1.weight": torch.zeros(2, 3)}, r"the model has no 'layer5\.0\.conv1\.weight' of \(2, 3\)"),
        ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, r"conv1\.weight is \(64, 3, 7, 7\), in the file \(64, 3, 3, 3\)"),
        ({"layer1.0.bn1.bias": torch.zeros(())}, r"layer1\.0\.bn1\.bias is \(64,\), in the file \(\)"),
        ({"fc.bias": torch.zeros(6)}, r"fc\.bias is \(5,\), in the file \(6,\)"),
        ({"fc.weight": torch.zeros(5)}, r"fc\.weight is \(5, 512\), in the file \(5,\)"),
        ({"fc.weight": torch.zeros(0, 512)}, r"fc\.weight is \(5, 512\), in the file \(0, 512\)"),
    ],
)
def test_one_tensor_is_wrong(state: State, change: State, complaint: str) -> None:
    with pytest.raises(InputError, match=rf"^x\.pth: weights of another model than resnet18: {complaint}$"):
        load({**state, **change}, "resnet18")


def test_exchanged_tensors_are_seen(state: State) -> None:
    """Names decide, not the order: two neighbours that change places do not fit."""
    state["layer2.0.conv1.weight"], state["layer2.0.conv2.weight"] = (
        state["layer2.0.conv2.weight"],
        state["layer2.0.conv1.weight"],
    )
    with pytest.raises(
        InputError, match=r"layer2\.0\.conv1\.weight is \(128, 64, 3, 3\), in the file \(128, 128, 3, 3\)$"
    ):
        load(state, "resnet18")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "layer3.1.conv2.weight",
            torch.nan,
            r"c4\.stage\.1\.layers\.1\.conv\.weight is not finite \(1 tensors in all\)",
        ),
        ("fc.bias", torch.inf, r"classify\.linear\.bias is not finite"),
        ("bn1.running_var", -0.5, r"stem\.conv\.norm\.running_var has a negative variance"),
    ],
)
def test_values_of_no_use(state: State, name: str, value: float, message: str) -> None:
    with pytest.raises(InputError, match=rf"^x\.pth: graph\.layers\.{message}"):
        load({**state, name: torch.full_like(state[name], value)}, "resnet18")


@pytest.mark.usefixtures("few_members")
def test_another_width() -> None:
    """As wide inside as ResNeXt, but its 16 convolutions of 3x3 are not grouped."""
    complaint = r"layer1\.0\.conv2\.weight is \(128, 4, 3, 3\), in the file \(128, 128, 3, 3\)"
    message = rf"^x\.pth: fits none of resnext50, resnet18; nearest is resnext50, misfits: 16, the first: {complaint}$"
    with pytest.raises(InputError, match=message):
        load(shapes_only("wide_resnet50_2"))


@pytest.mark.slow
def test_another_width_of_all_members() -> None:
    """33 blocks with 3 convolutions and 2 norms of another width, of 4 tensors each: 33 * (3 + 8)."""
    members = "resnext50, resnext101, resnet18, resnet34, resnet50, resnet101, resnet152"
    complaint = r"layer1\.0\.conv1\.weight is \(128, 64, 1, 1\), in the file \(256, 64, 1, 1\)"
    message = rf"^x\.pth: fits none of {members}; nearest is resnext101, misfits: 363, the first: {complaint}$"
    with pytest.raises(InputError, match=message):
        load(shapes_only("resnext101_32x8d"))


@pytest.mark.usefixtures("few_members")
def test_other_densenets() -> None:
    state = shapes_only("densenet121")
    message = r"^x\.pth: fits none of densenet121; nearest is densenet121, misfits: 1, the first: "
    norm = "features.denseblock2.denselayer3.norm2.bias"
    for change, complaint in [
        (
            {norm: torch.zeros(127)},
            r"features\.denseblock2\.denselayer3\.norm2\.bias is \(128,\), in the file \(127,\)",
        ),
        ({"features.transition4.norm.bias": torch.zeros(3)}, r"the model has no 'features\.transition4\.norm\.bias'"),
    ]:
        with pytest.raises(InputError, match=message + complaint):
            load({**state, **change})
    with pytest.raises(InputError, match=rf"^x\.pth: has {norm} twice, once in the form of older files$"):
        load({**state, norm.replace("norm2", "norm.2"): torch.zeros(128)})


def test_other_families() -> None:
    marks = " or ".join(f"'{family.mark}'" for family in TORCHVISION)
    vgg = {"features.0.weight": torch.zeros(1)}
    for tensors, found in [
        (their_state(random_model("yolov5n", 1)), "model.0.conv.weight"),
        (vgg, "features.0.weight"),
    ]:
        message = rf"^x\.pth: '{found}' and the others are no weights of torchvision; none starts with {marks}$"
        with pytest.raises(InputError, match=message):
            load(tensors)
