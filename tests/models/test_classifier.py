"""The classification model, and checkpoints of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detect.errors import InputError
from detect.models.build import build_classifier, build_model, empty_model
from detect.models.catalog import find_definition
from detect.models.checkpoint import load_checkpoint, rewrite_checkpoint, save_checkpoint
from detect.models.model import ClassificationModel, DetectionModel

FACTS = {"names": ("a", "b", "c"), "category_ids": (0, 1, 2), "image_size": 32, "metrics": {}, "provenance": {}}


@pytest.fixture
def model() -> ClassificationModel:
    torch.manual_seed(0)
    built = build_classifier("resnet18+width=0.1", 3)
    built.normalise_by((0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    return built.eval()


def test_images_are_normalised(model: ClassificationModel) -> None:
    """(1 - 0.5) / 0.5 = 1, (0.5 - 0.25) / 0.25 = 1, (0.75 - 0) / 1 = 0.75."""
    images = torch.tensor([1.0, 0.5, 0.75]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    assert model.normalised(images)[0, :, 0, 0].tolist() == [1.0, 1.0, 0.75]
    with torch.no_grad():
        assert torch.equal(model(images), model.graph(model.normalised(images)))
        assert model(images).shape == (1, 3)


def test_a_checkpoint_is_the_model(model: ClassificationModel, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, model, **FACTS, center_crop=0.875)
    found = load_checkpoint(path)
    images = torch.rand(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(found.classifier(images), model(images))
    assert found.center_crop == 0.875
    assert found.classifier.mean.tolist() == [0.5, 0.25, 0.0]
    with pytest.raises(InputError, match=r"^resnet18\+width=0.1 is a classifier; here a detector is needed$"):
        found.detector  # noqa: B018


def test_a_checkpoint_without_a_crop_looks_at_everything(model: ClassificationModel, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, model, **FACTS)
    content = torch.load(path, weights_only=True)
    del content["center_crop"]
    torch.save(content, path)
    found = load_checkpoint(path)
    assert (found.center_crop, found.value_range) == (1.0, None)


def test_a_checkpoint_keeps_the_range_of_values(model: ClassificationModel, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, model, **FACTS, value_range=(7400.0, 7600.0))
    rewrite_checkpoint(path, load_checkpoint(path))
    assert load_checkpoint(path).value_range == (7400.0, 7600.0)


def test_a_detectors_checkpoint_is_no_classifier(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.pt", build_model("yolov5n+width=0.1", 3), **FACTS)
    with pytest.raises(InputError, match=r"^yolov5n\+width=0.1 is a detector; here a classifier is needed$"):
        load_checkpoint(tmp_path / "model.pt").classifier  # noqa: B018


def test_the_head_decides(model: ClassificationModel) -> None:
    assert model.definition.is_classifier
    assert isinstance(empty_model(find_definition("resnet18"), 2), ClassificationModel)
    assert isinstance(empty_model(find_definition("resnet18+fpn"), 2), DetectionModel)
    with pytest.raises(InputError, match=r"the last row must be Classify, found AnchorDetect; yolov5n is a detector"):
        ClassificationModel(find_definition("yolov5n"), 2)
