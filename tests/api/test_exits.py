"""A classifier with early exits: head, loss, costs, training and measurement."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from detect.api.evaluation_series import exit_macs
from detect.data.images import write_image
from detect.losses.classification import ClassificationLoss
from detect.models.build import build_classifier
from detect.models.checkpoint import save_checkpoint
from detect.models.class_heads import ClassifyExits
from detect.models.model import ClassificationModel
from detect.structures import ClassTargets
from tests.tools.running import run_here

ROWS = """
name: tiny
backbone:
  - {name: a, module: BareConv, args: {out_channels: 4}}
  - {name: c5, module: BareConv, args: {out_channels: 6}}
head:
  - {name: exit1, module: BareConv, from: a, args: {out_channels: 5}}
  - {name: classify, module: ClassifyExits, from: [exit1, c5]}
"""
DATA = "name: x\nroot: x\nformat: folders\nsplits:\n  train: {images: val}\n  val: {images: val}\n"


@pytest.fixture
def model(tmp_path: Path) -> ClassificationModel:
    torch.manual_seed(0)
    (tmp_path / "tiny.yaml").write_text(ROWS)
    return build_classifier(str(tmp_path / "tiny.yaml"), 3)


def test_head_in_training_and_evaluation() -> None:
    torch.manual_seed(0)
    head = ClassifyExits((5, 6), 3)
    first, last = torch.rand(2, 5, 4, 4), torch.rand(2, 6, 2, 2)
    expected = [head.exits[0](first.mean(dim=(2, 3))), head.linear(last.mean(dim=(2, 3)))]
    torch.testing.assert_close(head(first, last), torch.stack(expected, dim=1))
    head.eval()
    torch.testing.assert_close(head(first, last), expected[1])
    head.active = 0
    torch.testing.assert_close(head(first, last), expected[0])


def test_loss_is_the_mean_over_the_exits() -> None:
    logits = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    shares = F.one_hot(torch.tensor([0, 2, 1, 2]), 3).float()
    loss = ClassificationLoss(0.1)
    each = [float(loss(logits[:, number], ClassTargets(shares)).total) for number in (0, 1)]
    assert float(loss(logits, ClassTargets(shares)).total) == pytest.approx(sum(each) / 2)


def test_costs(model: ClassificationModel) -> None:
    """3x3 convolutions at 8 x 8 cells: 3 to 4, then 4 to 5 and 5 * 3, or 4 to 6 and 6 * 3 of the head."""
    stem = 64 * 9 * 3 * 4
    assert exit_macs(model, 8) == [stem + 64 * 9 * 4 * 5 + 15, stem + 64 * 9 * 4 * 6 + 18]


@pytest.mark.parametrize(
    "name", ["resnet20-exits+width=0.25", pytest.param("wrn-28-10-exits+widen=1", marks=pytest.mark.slow)]
)
def test_shipped_models(name: str) -> None:
    """Two exits in each of three stages and the network's own; every weight learns, and later exits cost more."""
    torch.manual_seed(0)
    network = build_classifier(name, 10).train()
    logits = network(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 7, 10)
    ClassificationLoss()(logits, ClassTargets(torch.eye(10)[:2])).total.backward()
    assert [key for key, weight in network.named_parameters() if weight.grad is None] == []
    assert network.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    macs = exit_macs(network, 32)
    assert len(macs) == 7
    assert macs[0] < macs[2] < macs[4] < macs[6]


def test_measurement(model: ClassificationModel, tmp_path: Path) -> None:
    """The exits have logits that do not depend on the image: the first one says class 0, the last class 2."""
    head = model.head
    assert isinstance(head, ClassifyExits)
    with torch.no_grad():
        for layer, label in ((head.exits[0], 0), (head.linear, 2)):
            layer.weight.zero_()
            layer.bias.copy_(torch.eye(3)[label])
    facts = {"names": ("a", "b", "c"), "category_ids": (0, 1, 2), "image_size": 8, "metrics": {}, "provenance": {}}
    save_checkpoint(tmp_path / "model.pt", model, **facts)
    for number, name in enumerate("aabc"):
        write_image(tmp_path / f"x/val/{name}/{number}.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "data.yaml").write_text(DATA)
    words = ("evaluate.py", "--weights", "model.pt", "--data", "data.yaml", "--workers", 0, "--device", "cpu")
    ended = run_here(tmp_path, *words, "--exits", "--out", "out", "--metrics-json", "m.json")
    assert ended.code == 0, ended
    records = json.loads((tmp_path / "m.json").read_text())["exits"]
    assert [(one["exit"], one["top1"]) for one in records] == [(1, 0.5), (2, 0.25)]
    assert records[1]["share"] == 1
    assert [line.split()[:2] for line in ended.output.splitlines()[:2]] == [["exit", "1"], ["exit", "2"]]
    with (tmp_path / "out/exits.csv").open(newline="") as file:
        assert [row["top1"] for row in csv.DictReader(file)] == ["0.5", "0.25"]
    assert cv2.imread(str(tmp_path / "out/exits.png")) is not None
    alone = run_here(tmp_path, *words, "--metrics-json", "alone.json")
    assert alone.code == 0, alone
    assert json.loads((tmp_path / "alone.json").read_text())["top1"] == 0.25
    for option, message in (
        (("--exits", "--pre-crop", 8, 16), "--pre-crop: does not go with --exits"),
        (("--exits", "--crops", 10), "--crops: does not go with --exits"),
        (("--exits", "--image-size", 8, 16), "--exits: goes with one --image-size, found 2"),
    ):
        assert message in run_here(tmp_path, *words, *option).complaint


def test_a_model_without_exits(tmp_path: Path) -> None:
    facts = {"names": ("a", "b"), "category_ids": (0, 1), "image_size": 32, "metrics": {}, "provenance": {}}
    save_checkpoint(tmp_path / "model.pt", build_classifier("resnet20+width=0.25", 2), **facts)
    write_image(tmp_path / "x/val/a/0.png", np.zeros((32, 32, 3), np.uint8))
    (tmp_path / "x/val/b").mkdir()
    (tmp_path / "data.yaml").write_text(DATA)
    words = (
        "evaluate.py",
        "--weights",
        "model.pt",
        "--data",
        "data.yaml",
        "--workers",
        0,
        "--device",
        "cpu",
        "--exits",
    )
    assert "--exits: resnet20+width=0.25 has no early exits; resnet20-exits is" in run_here(tmp_path, *words).complaint
