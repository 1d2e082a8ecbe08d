"""Metrics of several instances in one go are those of each alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detect.data.datasets import open_split
from detect.evaluation.classification import evaluate_classifier
from detect.evaluation.detection import evaluate
from detect.evaluation.loop import Conditions
from detect.models.model import Model
from detect.papers.sdpoint.comparison import ClassificationSplit, DetectionSplit
from detect.papers.sdpoint.instances import instances_in
from detect.papers.sdpoint.transform import PLAIN, Instance, Way, instance_of, use_instance
from tests.papers.sdpoint.samples import classifier, detector
from tests.papers.sdpoint.test_comparison import CPU, classes, conditions
from tests.training.small import make_shapes

ALONE = Conditions(32, batch_size=4, workers=0, device=CPU, progress=False)


@torch.no_grad()
def raw_sums(model: Model, instance: Instance) -> list[float]:
    """Of the raw predictions of an image, one for each level."""
    use_instance(model, instance)
    return [level.sum().item() for level in model(torch.rand(1, 3, 32, 32, generator=torch.manual_seed(0)))]


@pytest.mark.parametrize("way", ["restore", "shrink"])
def test_detectors(tmp_path: Path, way: Way) -> None:
    table = open_split(make_shapes(tmp_path / "shapes", (1, 3, 1)), "val")
    two = {"names": ("a", "b"), "category_ids": table.category_ids[:2], "labels": table.labels % 2}
    table = replace(table, **two)
    checkpoint = detector(tmp_path, way=way)
    for conv in checkpoint.detector.head.predict:  # something is found in many cells, here rather than there
        conv.bias.data[4] = 3
        conv.weight.data *= 30
    members = instances_in(checkpoint).members
    found = DetectionSplit(table).measure(checkpoint, members, conditions(), "test")
    assert instance_of(checkpoint.model) == PLAIN
    for member, measured in zip(members, found, strict=True):
        use_instance(checkpoint.model, member)
        assert evaluate(checkpoint.detector, table, ALONE).metrics.values == measured.metrics
        assert measured.is_right is None
    assert len({str(raw_sums(checkpoint.model, member)) for member in members}) == len(members)  # different networks


def test_classifiers(tmp_path: Path) -> None:
    table, checkpoint = classes(tmp_path), classifier(tmp_path)
    members = instances_in(checkpoint).members
    found = ClassificationSplit(table).measure(checkpoint, members, conditions(), "test")
    assert instance_of(checkpoint.model) == PLAIN
    for member, measured in zip(members, found, strict=True):
        use_instance(checkpoint.model, member)
        alone = evaluate_classifier(checkpoint.classifier, table, ALONE)
        assert alone.metrics.values == pytest.approx(measured.metrics)
        np.testing.assert_array_equal(measured.is_right, alone.predicted == table.labels)
    assert len({measured.metrics["loss"] for measured in found}) == len(members)


def test_classes_in_another_order(tmp_path: Path) -> None:
    """The network always says its first class, which is the table's third, which all images show."""
    table, checkpoint = classes(tmp_path), classifier(tmp_path)
    checkpoint.classifier.head.linear.weight.data.zero_()
    checkpoint.classifier.head.linear.bias.data = torch.tensor([9.0, 0.0, 0.0])
    turned = replace(table, labels=table.labels * 0 + 2, names=("b", "c", "a"))
    (measured,) = ClassificationSplit(turned).measure(checkpoint, [PLAIN], conditions(), "test")
    assert measured.metrics["top1"] == 1
    assert measured.is_right is not None
    assert measured.is_right.all()
