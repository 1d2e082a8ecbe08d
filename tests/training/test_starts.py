"""A detector that starts from a classifier of its backbone."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from detect.errors import InputError
from detect.models.build import build_classifier, build_model
from detect.models.catalog import find_definition
from detect.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from detect.models.definition import normalisation_of
from detect.training.starts import copy_weights, normalised_as
from tests.models.thin import thin

NARROW = "+width=0.125"
MEAN, STD = (0.25, 0.5, 0.75), (0.125, 0.25, 0.5)
ANEW = "neck and head start anew; images are normalised as the classifier's"


@pytest.fixture
def said(caplog):
    """What is logged."""
    caplog.set_level(logging.INFO, logger="detect")
    return caplog


def trained_classifier(name, mean=MEAN, std=STD):
    """A checkpoint whose norms are not those of a new model."""
    torch.manual_seed(0)
    model = build_classifier(name, 3).eval()
    model.normalise_by(mean, std)
    for norm in (layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean, std=0.2)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
    return Checkpoint(model, ("a", "b", "c"), (0, 1, 2), 32, {}, {})


def started(name, checkpoint):
    model = build_model(normalised_as(find_definition(name), checkpoint.model), 2)
    copy_weights(model, checkpoint, ("x", "y"), "c.pt")
    return model.eval()


@torch.no_grad()
def maps_of(model, image):
    """Each row's output, by name."""
    found = {}
    for name, layer in model.graph.layers.items():
        layer.register_forward_hook(lambda _, __, output, name=name: found.update({name: output}))
    model(image)
    return found


@pytest.mark.parametrize(
    ("classifier", "detector"),
    thin(
        [
            ("resnet18", "resnet18+fpn"),
            ("resnet18", "resnet18-spd-pool+fpn"),
            ("csppeleenet", "csppeleenet-efm"),
            ("resnet50", "resnet50+panet"),
            ("resnext50", "resnext50+efm"),
            ("preresnet50", "preresnet50+fpn"),
            ("densenet121", "densenet121+fpn"),
            ("darknet53", "yolov3"),
            ("cspresnext50", "cspresnext50-panet-spp"),
            ("resnet18+bdsc", "resnet18+fpn+bdsc"),
        ],
        *(0, 1, 2),
    ),
)
def test_the_backbone_computes_the_classifiers_maps(said, classifier, detector):
    """To the border of the image; a space-to-depth takes over a stride."""
    checkpoint = trained_classifier(classifier + NARROW)
    model = started(detector + NARROW, checkpoint)
    last = said.records[-1]
    assert last.levelname == "INFO"
    assert last.getMessage().startswith("c.pt: 100.0 % of the backbone's ")
    assert last.getMessage().endswith(f"weights copied; its maps are the classifier's; {ANEW}")
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    own, theirs = maps_of(model, image), maps_of(checkpoint.model, image)
    for level in ("c2", "c3", "c4", "c5"):
        assert theirs[level].std() > 1e-3, "the comparison says something"
        torch.testing.assert_close(own[level], theirs[level], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("classifier", "detector", "line"),
    thin(
        [
            # c5 alone has the same name and shapes: 9 * (32 * 64 + 3 * 64 * 64) + 32 * 64 + 5 * 2 * 64 = 131,712
            # weights of 176,712.
            ("resnet18-strided", "resnet18+fpn", "74.5 %; rows that start anew, in part or whole: stem, c2, c3, c4"),
            (
                *("resnet18", "resnet18+fpn+activation=leaky"),
                "100.0 %; rows that compute something else: stem, c2, c3, c4, c5",
            ),
            ("resnet18", "resnet34+fpn", "rows that start anew, in part or whole: c2, c3, c4, c5"),
            ("resnet34", "resnet18+fpn", "100.0 %; rows that compute something else: c2, c3, c4, c5"),
            ("resnet18-spd-pool", "resnet18+fpn", "rows that start anew, in part or whole: stem, c3, c4, c5"),
        ],
        *(0, 1),
    ),
)
def test_what_is_not_the_classifiers_is_named(said, classifier, detector, line):
    model = started(detector + NARROW, trained_classifier(classifier + NARROW))
    assert said.records[-1].levelname == "WARNING"
    message = said.messages[-1].replace(f" of the backbone's {backbone_weights(model):,} weights copied", "")
    assert line in message
    assert message.endswith(ANEW)


def backbone_weights(model):
    rows = [row.name for row in model.definition.rows if row.section == "backbone"]
    return sum(parameter.numel() for row in rows for parameter in model.graph.layer(row).parameters())


def test_a_norm_starts_anew_with_its_convolution():
    """The stem's 3x3 convolution does not fit its 7x7 one; the norm behind it would, with statistics of another's."""
    model = started(f"resnet18+fpn{NARROW}", trained_classifier(f"resnet18-strided{NARROW}"))
    assert not model.graph.layers["stem"].conv.norm.running_mean.any()


@pytest.mark.parametrize(
    ("detector", "classifier"),
    [
        ("resnet18+fpn", " (resnet18)"),
        ("resnet18+fpn+width=0.25+coding=yolov5", " (resnet18+width=0.25)"),
        ("yolov5n+width=0.25", ""),  # no classifier has this name
    ],
)
def test_nothing_fits(detector, classifier):
    with pytest.raises(InputError) as refused:
        started(detector, trained_classifier("resnet20"))
    assert str(refused.value) == (
        f"c.pt: no layer of the classifier resnet20 fits the backbone of {detector}; a detector starts from a "
        f"classifier of its own backbone and width{classifier}"
    )


def test_a_classifier_does_not_start_from_a_detector():
    detector = Checkpoint(build_model(f"resnet18+fpn{NARROW}", 2), ("x", "y"), (0, 1), 64, {}, {})
    with pytest.raises(InputError, match=r"^resnet18\+fpn\+width=0\.125 is a detector; here a classifier is needed$"):
        copy_weights(build_classifier(f"resnet18{NARROW}", 2), detector, ("x", "y"), "d.pt")


def test_images_in_0_to_1_need_no_row():
    model = started(f"resnet18+fpn{NARROW}", trained_classifier(f"resnet18{NARROW}", (0, 0, 0), (1, 1, 1)))
    assert normalisation_of(model.definition) is None


def test_the_normalisation_goes_with_the_weights(tmp_path):
    """Through a checkpoint, into the next detector, and as the same function."""
    model = started(f"resnet18+fpn{NARROW}", trained_classifier(f"resnet18{NARROW}"))
    path = tmp_path / "d.pt"
    save_checkpoint(path, model, names=("x", "y"), category_ids=(0, 1), image_size=64, metrics={}, provenance={})
    loaded = load_checkpoint(path)
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded.model(image)[0], model(image)[0])
    other = started(f"resnet18+fpn{NARROW}", loaded)
    assert normalisation_of(other.definition) == {"mean": list(MEAN), "std": list(STD)}
    assert torch.equal(maps_of(other, image)["c5"], maps_of(model, image)["c5"])
