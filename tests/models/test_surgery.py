"""Strided weights in space-to-depth models: the same boxes and scores, and rows that have no exact form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detect.class_names import match_names
from detect.models.build import build_model, empty_model
from detect.models.catalog import find_definition
from detect.models.model import DetectionModel, Model
from detect.models.surgery import Rearranged, becomes_spd, spd_model
from detect.training.starts import transfer_weights
from tests.models.thin import thin
from tests.models.yamls import write_model

NUM_CLASSES = 3
NARROW = "+width=0.1+depth=0.1"


def random_model(name: str) -> Model:
    """A model with random weights and statistics of its norms, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    model = empty_model(find_definition(name), NUM_CLASSES)
    for key, tensor in model.state_dict().items():
        if key.endswith(("running_var", "norm.weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif key.endswith(("running_mean", "norm.bias")):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 4)
        elif key.endswith("weight"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
    return model.eval()


def operate(strided: str, spd: str) -> tuple[Model, Model, Rearranged]:
    """The strided model, its space-to-depth counterpart, and what was done."""
    source, definition = random_model(strided), find_definition(spd)
    assert becomes_spd(source.definition, definition)
    return source, *spd_model(source, definition)


@torch.no_grad()
def assert_same_outputs(model: Model, source: Model) -> None:
    """Boxes to 1e-4 px and probabilities to 1e-5, on an image of other sides than the measurement's."""
    side = source.max_reduction
    image = torch.rand(2, 3, 2 * side, 3 * side, generator=torch.Generator().manual_seed(1))
    found, expected = model(image), source(image)
    if isinstance(source, DetectionModel) and isinstance(model, DetectionModel):
        found, expected = model.decode(found), source.decode(expected)
        # float32 itself has steps of 6e-5 px in a box of 600 px
        torch.testing.assert_close(found[..., :4], expected[..., :4], rtol=1e-6, atol=1e-4)
        found, expected = found[..., 4:], expected[..., 4:]
    else:
        found, expected = found.softmax(1), expected.softmax(1)
    assert expected.std() > 1e-3  # the comparison says something
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("strided", "spd", "rows"),
    # The stem and the readers of conv-first maps are rearranged, or the convolutions behind a space-to-depth.
    thin(
        [
            ("yolov5n+width=0.5", "yolov5n-spd+width=0.5", 7),
            ("yolov5n+width=0.5", "yolov5n-spd+order=spd_first+width=0.5", 7),
            (f"yolov3{NARROW}", f"yolov3+spd{NARROW}", 5),
            (f"yolov3{NARROW}", f"yolov3+spd+order=conv_first{NARROW}", 5),
            (f"yolov4{NARROW}", f"yolov4+spd{NARROW}", 7),
            (f"cspdarknet53-panet-spp{NARROW}", f"cspdarknet53-panet-spp+spd+order=spd_first{NARROW}", 7),
            ("resnet18-strided+width=0.25", "resnet18-spd+spd_form=absorb+width=0.25", 4),
            ("resnet18-strided+width=0.25", "resnet18-spd+spd_form=inside+width=0.25", 4),
            ("resnet50-strided+width=0.25", "resnet50-spd+spd_form=inside+width=0.25", 4),
            ("resnet50+width=0.25", "resnet50-spd-pool+width=0.25", 4),
            ("yolov5n+bdsc+width=0.5", "yolov5n-spd+bdsc+width=0.5", 7),
            ("yolov5n+anchor-free+width=0.5", "yolov5n-spd+anchor-free+width=0.5", 7),
            ("yolov5s", "yolov5s-spd", 7),
            ("yolov4+width=0.25", "yolov4+spd+width=0.25", 7),
            ("resnet50", "resnet50-spd-pool", 4),
        ],
        *(0, 2, 4, 8, 9, 11),
    ),
)
def test_the_function_is_the_same(strided: str, spd: str, rows: int) -> None:
    source, model, done = operate(strided, spd)
    assert done.is_same
    assert len(done.rows) == rows
    assert not done.differing
    assert done.state.keys() == model.state_dict().keys()
    assert_same_outputs(model, source)


CSP = """
name: csp
backbone:
  part: %s
  defaults: {downsample: %s}
  override: {stem: {args: {kernel_size: 3}}, stem_pool: {args: {downsample: stride}}}
neck: {part: panet, defaults: {downsample: %s}}
scale: {width: 0.1, depth: 0.1}
"""


@pytest.mark.parametrize("backbone", thin(["cspresnext50", "cspresnet50"], 0))
def test_csp_backbones_with_another_stem(tmp_path: Path, backbone: str) -> None:
    """Their 7x7 stem needs more than 3x3 blocks and their max-pool has no form: all that is behind these is exact."""
    files = []
    for kind in ("stride", "spd"):
        (tmp_path / kind).mkdir()
        files.append(str(write_model(tmp_path / kind, CSP % (backbone, kind, kind))))
    source, model, done = operate(*files)
    assert done.is_same
    assert_same_outputs(model, source)


@pytest.mark.parametrize(
    ("strided", "differing"),
    thin(
        [
            ("csppeleenet+efm+width=0.25", ("stem_pool", "pool2", "pool3", "pool4")),
            ("resnet18-strided+width=0.25", ("stage2", "stage3", "c5")),
            (f"cspresnext50-panet-spp{NARROW}", ("stem", "stem_pool")),
            ("densenet121+width=0.25", ("stem", "stem_pool", "down3", "down4", "down5")),
            ("yolov3-tiny+width=0.25", ("down1", "down2", "down3", "down4", "down5")),
        ],
        0,
        1,
    ),
)
def test_rows_without_an_exact_form_are_named(strided: str, differing: tuple[str, ...]) -> None:
    _, model, done = operate(strided, f"{strided}+spd")
    assert not done.is_same
    assert done.differing == differing
    assert done.line.endswith(f"no exact form: {', '.join(differing)}")
    assert done.state.keys() == model.state_dict().keys()  # all of them are nearly the same, none starts anew


def test_an_average_pool_behind_relu_is_exact(tmp_path: Path) -> None:
    """Where no value is negative the activation keeps the mean; behind a leaky ReLU it does not."""
    rows = """
name: pooled
backbone:
  - {name: c1,   module: Conv, args: {out_channels: 8, kernel_size: 3, activation: %s}}
  - {name: pool, module: Pool, args: {kind: avg, downsample: %s, activation: %s}, reduction: 2}
head:
  - {name: classify, module: Classify}
"""
    for activation, differing in (("relu", ()), ("leaky", ("pool",))):
        files = []
        for kind in ("stride", "spd"):
            (tmp_path / activation / kind).mkdir(parents=True)
            text = rows % (activation, kind, activation)
            files.append(str(write_model(tmp_path / activation / kind, text)))
        assert operate(*files)[2].differing == differing


def test_other_classes_and_a_backbone_alone() -> None:
    """The weights go on to a model for other classes, by name; those of a backbone to another neck."""
    source = random_model("yolov5n+width=0.5")
    model = build_model("yolov5n-spd+width=0.5", 2).eval()
    done = spd_model(source, model.definition)[1]
    copied = transfer_weights(model, done.state, match_names(("a", "b", "c"), ("x", "b")))
    assert copied.whole + copied.by_class == copied.total
    image = torch.rand(1, 3, 64, 64)
    for found, expected in zip(model(image), source(image), strict=True):
        torch.testing.assert_close(found[..., :5], expected[..., :5], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[..., 6], expected[..., 6], rtol=1e-4, atol=1e-5)

    done = spd_model(random_model("cspdarknet53+width=0.1"), find_definition("cspdarknet53+fpn+spd+width=0.1"))[1]
    assert done.rows == ("c1", "c2", "c3", "c4", "c5")
    assert (done.is_same, done.differing) == (False, ())
    assert done.line.endswith("which compute the same; the models differ beyond")
    assert not any("detect" in name for name in done.state)


def test_another_width_gives_nothing() -> None:
    done = spd_model(random_model("yolov5n"), find_definition("yolov5n-spd+width=0.5"))[1]
    assert not done.rows
    assert not done.is_same


def test_every_new_weight_learns_from_the_first_step() -> None:
    """The weights of the pixels that the stride skipped are zero, but their inputs are not: no symmetry to break."""
    _, model, done = operate("yolov5n+width=0.5", "yolov5n-spd+width=0.5")
    sum(level.square().mean() for level in model.train()(torch.rand(2, 3, 64, 64))).backward()
    for name in done.rows[1:]:
        weight = model.get_parameter(f"graph.layers.{name}.divide.conv.weight")
        is_new = (weight == 0).all(dim=(0, 2, 3))
        assert is_new.sum() >= weight.shape[1] / 2
        gradient = weight.grad
        assert gradient is not None
        assert (gradient[:, is_new] != 0).all(), name


def test_a_strided_target_or_source_in_spd_needs_nothing() -> None:
    names = ("yolov5n", "yolov5n-spd")
    wanted = [becomes_spd(find_definition(a), find_definition(b)) for a in names for b in names]
    assert wanted == [False, True, False, False]
