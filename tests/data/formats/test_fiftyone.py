"""FiftyOne's own readers and writers on our side of the COCO layout; its database is not needed for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.data.datasets import read_split
from detect.data.recognition import open_data
from detect.data.shapes import generate_shapes
from detect.structures import Detections

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # FiftyOne's and its forty packages'
]


@pytest.fixture(scope="module")
def fiftyone() -> Any:
    return pytest.importorskip("fiftyone", reason="FiftyOne is not installed: pip install fiftyone")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    generate_shapes(folder, 3, 1, 1, image_size=64)
    return folder


def test_detections_as_labels(fiftyone: Any) -> None:
    """Boxes as shares of 200 x 100 pixels: left, top, width, height."""
    boxes = np.array([[50, 40, 120, 90], [0, 0, 200, 100]], np.float32)
    found = Detections(
        boxes, np.array([0.5, 0.25], np.float32), np.array([1, 0]), (100, 200), ("cat", "dog"), np.array([7, -1])
    )
    labels = found.to_fiftyone().detections
    assert [(one.label, one.confidence, one.index) for one in labels] == [("dog", 0.5, 7), ("cat", 0.25, None)]
    assert np.allclose([one.bounding_box for one in labels], [[0.25, 0.4, 0.35, 0.5], [0, 0, 1, 1]])


def test_it_reads_what_we_convert(fiftyone: Any, shapes: Path) -> None:
    """The first image has no objects, which FiftyOne shows as no label."""
    from fiftyone.utils.coco import COCODetectionDatasetImporter

    table = read_split(open_data(str(shapes)), "train")
    importer = COCODetectionDatasetImporter(
        label_types="detections",
        data_path=str(shapes / "images" / "train"),
        labels_path=str(shapes / "annotations" / "train.json"),
    )
    with importer:
        samples = {Path(path).name: (size, labels.detections if labels else []) for path, size, labels in importer}
    assert len(samples) == len(table) == 3
    for row in range(len(table)):
        size, labels = samples[table.path(row).name]
        boxes = np.array([one.bounding_box for one in labels]).reshape(-1, 4) * ([size.width, size.height] * 2)
        boxes[:, 2:] += boxes[:, :2]
        assert np.allclose(np.sort(boxes, axis=0), np.sort(table.boxes(row)[0], axis=0))


def test_we_read_what_it_writes(fiftyone: Any, shapes: Path, tmp_path: Path) -> None:
    from fiftyone.utils.coco import COCODetectionDatasetExporter

    image = next((shapes / "images" / "train").glob("*.jpg"))
    labels = [fiftyone.Detection(label="bee", bounding_box=[0.25, 0.5, 0.125, 0.25])]
    with COCODetectionDatasetExporter(export_dir=str(tmp_path / "exported"), classes=["ant", "bee"]) as exporter:
        size = fiftyone.ImageMetadata.build_for(str(image))
        exporter.export_sample(str(image), fiftyone.Detections(detections=labels), metadata=size)
    table = read_split(open_data(str(tmp_path / "exported")), "train")
    assert table.names == ("ant", "bee")
    assert table.labels.tolist() == [1]
    assert table.boxes_xyxy_px.tolist() == [[16, 32, 24, 48]]  # of 64 px
