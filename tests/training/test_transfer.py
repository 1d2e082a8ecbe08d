"""Weights as the start of a model for other classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detect.class_names import match_names
from detect.models.build import build_classifier, build_model
from detect.models.catalog import find_definition
from detect.training.starts import transfer_weights
from tests.models.thin import thin

SMALL = "yolov5n+width=0.1"
SAME = match_names(("a", "b"), ("a", "b"))
HEAD = "graph.layers.detect.predict"


def by_anchor(state: dict[str, Tensor], level: int, word: str) -> Tensor:
    """(3, 5 + K, ...) values of a level of the head."""
    tensor = state[f"{HEAD}.{level}.{word}"]
    return tensor.view(3, -1, *tensor.shape[1:])


@pytest.mark.parametrize(
    ("given", "wanted", "rows"),
    [
        (("a", "b", "c"), ("c", "a", "b"), {0: 2, 1: 0, 2: 1}),
        (("a", "b"), ("a", "x"), {0: 0}),
        (("a", "b"), ("x", "y", "B", "a", "z"), {2: 1, 3: 0}),
        (("a", "b", "c"), ("c",), {0: 2}),
        (("a", "b"), ("x", "y"), {}),
    ],
)
@pytest.mark.parametrize("name", thin([SMALL, "yolov3-tiny+width=0.1"], 0))
def test_rows_of_the_head_go_by_name(
    name: str, given: tuple[str, ...], wanted: tuple[str, ...], rows: dict[int, int]
) -> None:
    """``rows``: each class of the model that has a counterpart. Boxes and objectness belong to no class."""
    source, model = build_model(name, len(given)), build_model(name, len(wanted))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copied = transfer_weights(model, source.state_dict(), match_names(given, wanted))
    after, theirs = model.state_dict(), source.state_dict()
    num_levels = len(model.head.reductions)
    assert copied == (len(after) - 1 - 2 * num_levels, 2 * num_levels, len(after) - 1)  # the anchors do not count
    for level in range(num_levels):
        for word in ("weight", "bias"):
            now, old, gave = (by_anchor(state, level, word) for state in (after, before, theirs))
            assert torch.equal(now[:, :5], gave[:, :5])
            for row in range(len(wanted)):
                expected = gave[:, 5 + rows[row]] if row in rows else old[:, 5 + row]
                assert torch.equal(now[:, 5 + row], expected), (level, word, row)
    for name, value in after.items():
        if HEAD not in name:
            assert torch.equal(value, theirs[name]), name


def test_classes_of_a_head_without_anchors_go_by_name() -> None:
    """Its branches and boxes belong to no class and are copied whole."""
    source, model = build_model("yolox-nano", 3), build_model("yolox-nano", 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copied = transfer_weights(model, source.state_dict(), match_names(("a", "b", "c"), ("x", "a")))
    after, theirs = model.state_dict(), source.state_dict()
    assert copied == (len(after) - 6, 6, len(after))
    for name, value in after.items():
        if ".detect.classes." in name:
            assert torch.equal(value, torch.stack([before[name][0], theirs[name][0]])), name
        else:
            assert torch.equal(value, theirs[name]), name


def test_rows_of_a_classifier_go_by_name() -> None:
    """The normalisation comes with the weights."""
    source, model = build_classifier("resnet20", 3), build_classifier("resnet20", 4)
    source.normalise_by((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    before = {name: value.clone() for name, value in model.head.linear.state_dict().items()}
    copied = transfer_weights(model, source.state_dict(), match_names(("a", "b", "c"), ("x", "c", "y", "a")))
    total = len(model.state_dict())
    assert copied == (total - 2, 2, total)
    for word, value in model.head.linear.state_dict().items():
        gave = source.head.linear.state_dict()[word]
        assert torch.equal(value, torch.stack([before[word][0], gave[2], before[word][2], gave[0]]))
    assert torch.equal(model.mean, source.mean)
    for name, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]) or "classify" in name, name


def test_transfer_to_itself_and_to_another_size() -> None:
    source, model = build_model("yolov5n+width=0.2", 2), build_model("yolov5n+width=0.2", 2)
    copied = transfer_weights(model, source.state_dict(), SAME)
    assert copied.whole == copied.total
    for name, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name
    copied = transfer_weights(build_model("yolov5n+width=0.4", 2), source.state_dict(), SAME)
    assert 0 < copied.whole < copied.total  # the batch counters of the norms
    copied = transfer_weights(
        build_model("yolov5n+width=0.4", 2), source.state_dict(), match_names(("a", "b"), ("b", "a"))
    )
    assert copied.by_class == 0  # the head has more input channels


def test_transfer_leaves_the_anchors() -> None:
    """They are the receiver's own: its definition states them, and they may have been fitted to its data."""
    source, model = build_model(SMALL, 2), build_model(SMALL, 2)
    own = model.head.anchors_px.clone()
    source.head.anchors_px.mul_(2)
    transfer_weights(model, source.state_dict(), SAME)
    assert torch.equal(model.head.anchors_px, own)
    assert torch.equal(model.head.predict[0].weight, source.head.predict[0].weight)


def test_transfer_from_strided_to_spd() -> None:
    """The six 3x3 convolutions fit; the stem and the six C3 that take 4 times the channels do not."""
    strided, spd = build_model(find_definition("yolov5n"), 2), build_model(find_definition("yolov5n-spd"), 2)
    copied = transfer_weights(spd, strided.state_dict(), SAME)
    assert copied.whole == copied.total - 7
    assert torch.equal(
        spd.state_dict()["graph.layers.down2.conv.conv.weight"],
        strided.state_dict()["graph.layers.down2.conv.conv.weight"],
    )
