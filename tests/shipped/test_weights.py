"""Every shipped checkpoint is what its model card says, and finds what it was trained to find."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from detect import Detector
from detect.config.data import load_data_config
from detect.data.annotations import AnnotationTable
from detect.data.datasets import open_split
from detect.evaluation.detection import evaluate
from detect.evaluation.loop import Conditions
from detect.exporting.ship import sha256, without_machine
from detect.models.catalog import shipped_weights
from detect.models.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
MAX_BYTES = 6 * 2**20
REAL = [("yolov5n-spd-bccd", "bccd", "test"), ("yolov5n-spd-deeppcb", "deeppcb", "val")]
"""Checkpoints, the data that they were trained on, and the split that their cards are about."""
NAMES = sorted(shipped_weights())


def card(name: str) -> str:
    return shipped_weights()[name].with_suffix(".md").read_text(encoding="utf-8")


def metrics_of(name: str) -> dict[str, str]:
    """The metrics of the card that have a value, as they are written there."""
    result = next(line for line in card(name).splitlines() if line.startswith("| result |"))
    return dict(re.findall(r"(A[PR]\w*) (\d\.\d+)", result.split(" AP by class")[0]))


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_about_this_file(name: str) -> None:
    path = shipped_weights()[name]
    assert path.stat().st_size < MAX_BYTES
    assert f"| sha256 | `{sha256(path)}` |" in card(name)
    rows = re.findall(r"^\| (\w+) \|", card(name), re.MULTILINE)
    assert rows == ["sha256", "model", "data", "command", "result", "licence", "limits"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("document", ["README.md", "weights/README.md"])
def test_documents_say_what_the_card_says(name: str, document: str) -> None:
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if re.match(rf"\| [`\[]{name}[`\]]", line)]
    said = metrics_of(name)
    assert f"| {said['AP']} | {said['AP_S']} |" in line


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_made_to_be_given_away(name: str) -> None:
    found = load_checkpoint(Path(name))
    assert found.training is None
    assert without_machine(found.provenance) == found.provenance
    assert f"`{found.model.definition.name}`, {len(found.names)} classes ({', '.join(found.names)})" in card(name)
    assert found.provenance["command"] in card(name)
    stored = torch.load(shipped_weights()[name], weights_only=True)["state_dict"]
    halves = sum(tensor.numel() for tensor in stored.values() if tensor.dtype == torch.float16)
    assert halves > 0.95 * sum(tensor.numel() for tensor in stored.values())


def test_shapes_are_found() -> None:
    """A disc of radius 30 and a square of side 50, bright on dark."""
    image = np.full((192, 192, 3), 60, np.uint8)
    cv2.circle(image, (50, 60), 30, (220, 200, 60), -1)
    cv2.rectangle(image, (110, 110), (159, 159), (60, 220, 230), -1)
    found = Detector("yolov5n-spd-shapes", device="cpu").predict(image)
    truth = {"disc": [20.0, 30, 81, 91], "square": [110.0, 110, 160, 160]}
    assert sorted(one.name for one in found) == sorted(truth)
    for one in found:
        assert one.score > 0.5
        assert box_iou(torch.tensor([one.box_xyxy_px]), torch.tensor([truth[one.name]])) > 0.8


def real_split(real_data: Path, data: str, split: str) -> AnnotationTable:
    return open_split(load_data_config(data, str(real_data / data)), split)


@pytest.mark.parametrize(("name", "data", "split"), REAL)
def test_most_objects_of_a_real_image_are_found(real_data: Path, name: str, data: str, split: str) -> None:
    """Boxes of the right class that overlap by an IoU of 0.5, over three images that training did not see."""
    table, detector = real_split(real_data, data, split), Detector(name, device="cpu")
    assert detector.names == table.names
    hits = []
    for row in range(3):
        found = detector.predict(table.path(row))
        boxes, labels, _ = table.boxes(row)
        overlap = box_iou(torch.from_numpy(boxes).float(), torch.from_numpy(found.boxes_xyxy_px)).numpy()
        hits += list(((overlap > 0.5) & (labels[:, None] == found.labels)).any(axis=1))
    assert np.mean(hits) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize(("name", "data", "split"), REAL)
def test_the_card_says_what_is_measured(real_data: Path, name: str, data: str, split: str) -> None:
    checkpoint = load_checkpoint(Path(name))
    found = evaluate(
        checkpoint.detector,
        real_split(real_data, data, split),
        Conditions(checkpoint.image_size, 16, workers=0, device=torch.device("cpu"), names=checkpoint.names),
    )
    said = metrics_of(name)
    assert len(said) == 12
    for metric, value in said.items():
        assert found.metrics.values[metric] == pytest.approx(float(value), abs=0.001)
