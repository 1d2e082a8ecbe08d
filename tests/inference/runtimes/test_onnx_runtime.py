"""``Detector`` and ``Classifier`` on an exported file: what they find with the checkpoint."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from detect.errors import InputError
from detect.evaluation.postprocess import PredictSettings
from detect.exporting.comparison_inputs import comparison_images
from detect.exporting.onnx import export_onnx
from detect.exporting.options import ExportOptions
from detect.exporting.parity import count_unmatched
from detect.inference.classifier import Classifier
from detect.inference.detector import Detector
from detect.inference.run import open_predictor
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from tests.inference.onnx_files import write_classifier, write_detections, write_raw
from tests.models.yamls import TINY, write_model

KINDS = {
    "predictions": ExportOptions(),
    "detections": ExportOptions(suppression=PredictSettings(0.1, 0.6, 300)),
    "raw": ExportOptions(raw=True),
    "one size": ExportOptions(dynamic=False),
    "raw of one size": ExportOptions(dynamic=False, raw=True),
    "detections of one size": ExportOptions(dynamic=False, suppression=PredictSettings(0.1, 0.6, 300)),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny detector that finds something everywhere."""
    folder = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(1)
    model = build_model(str(write_model(folder, TINY)), num_classes=3)
    with torch.no_grad():
        for conv in model.head.predict:
            conv.weight.mul_(4)
            conv.bias.view(model.head.anchors_px.shape[1], -1)[:, 4:] = 0
    path = folder / "best.pt"
    save_checkpoint(
        path, model, names=("a", "b", "c"), category_ids=(1, 2, 3), image_size=64, metrics={}, provenance={}
    )
    return load_checkpoint(path)


@pytest.fixture(scope="module", params=KINDS)
def exported(request, checkpoint, tmp_path_factory):
    """An exported file of each kind, and images for it: one that takes one size sees the whole square of padding, where
    the checkpoint pads to the next multiple only, so that they agree on squares.
    """
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_onnx(checkpoint, path, KINDS[request.param])
    images = comparison_images()
    if not KINDS[request.param].dynamic:
        images = [image[:33, :33] for image in images]
    return path, [*images, images[0][:, ::-1]]  # the last two make a batch of one shape


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 9])
def test_the_same_detections(checkpoint, exported, batch_size):
    path, images = exported
    reference, model = Detector(checkpoint, "cpu"), Detector(path)
    assert (model.names, model.image_size, model.device.type, model.cost) == (("a", "b", "c"), 64, "cpu", 1.0)
    options = {"conf": 0.3, "batch_size": batch_size, "max_det": 50}
    expected, found = reference.predict(images, **options), model.predict(images, **options)
    assert sum(map(len, expected)) > 100
    for one, other in zip(expected, found, strict=True):
        assert len(one) == len(other)
        assert count_unmatched(rows(one), rows(other)) == 0  # equal scores may change places


def rows(found):
    """(N, 6): box, score, class."""
    return np.column_stack([found.boxes_xyxy_px, found.scores, found.labels])


@pytest.mark.slow
def test_another_size(checkpoint, exported):
    path, images = exported
    model = Detector(path)
    if model.network_hw((33, 99)) == (64, 64):
        with pytest.raises(InputError, match=r"image size: .*model.onnx takes 64 only, found 96"):
            model.predict(images[0], image_size=96)
    else:
        assert model.network_hw((33, 99), 96) == (32, 96)
        with pytest.raises(InputError, match="image size: must be a multiple of 4"):
            model.predict(images[0], image_size=98)
        expected = Detector(checkpoint, "cpu").predict(images[0], image_size=96, conf=0.3)
        found = model.predict(images[0], image_size=96, conf=0.3)
        np.testing.assert_allclose(found.boxes_xyxy_px, expected.boxes_xyxy_px, atol=0.01)


def test_a_classifier(tmp_path):
    """Red is 51/255 = 0.2 in the middle 0.8 of the image, and 0 around it: probabilities e^0.2 : 1 : 1."""
    found = open_predictor(write_classifier(tmp_path / "model.onnx"), "cpu", "fp32")
    assert isinstance(found, Classifier)
    assert (found.names, found.image_size, found.center_crop) == (("a", "b", "c"), 64, 0.8)
    image = np.zeros((80, 120, 3), np.uint8)
    image[8:72, 28:92, 0] = 51
    expected = np.exp([0.2, 0, 0]) / (np.exp(0.2) + 2)
    for given in found.predict([image, image], batch_size=2):
        np.testing.assert_allclose(given.probabilities, expected, atol=1e-6)
    with pytest.raises(InputError, match=r"hand-made is a classifier; use detect\.Classifier"):
        Detector(tmp_path / "model.onnx")


@pytest.mark.parametrize("fixed", [False, True])
def test_raw_maps_are_decoded(tmp_path, fixed):
    """Values of 0: the centre is the middle of its cell, the size that of its anchor, all probabilities are 1/2.

    An image of 16 x 24 has 2 x 3 cells for each of two anchors, padded to 64 x 64 it has 8 x 8.
    """
    network = Detector(write_raw(tmp_path / "model.onnx", fixed=fixed)).network
    predictions = network.predictions(np.zeros((2, 16, 24, 3), np.uint8))
    rows, columns = (8, 8) if fixed else (2, 3)
    assert network.padded_hw((16, 24)) == (8 * rows, 8 * columns)
    assert predictions.shape == (2, 2 * rows * columns, 8)
    assert predictions[0, 0].tolist() == [4, 4, 6, 4, 0.5, 0.5, 0.5, 0.5]
    assert predictions[1, columns + 1].tolist() == [12, 12, 6, 4, 0.5, 0.5, 0.5, 0.5]
    assert predictions[1, rows * columns + 1].tolist() == [12, 4, 10, 12, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("fixed", [False, True])
def test_detections_of_a_file_with_suppression_inside(tmp_path, fixed):
    """An image of 32 px is enlarged twice. Boxes of two classes that overlap stay; a higher ``conf`` counts."""
    rows = [[0, 0, 32, 32, 0.9, 2], [0, 0, 32, 30, 0.8, 1], [0, 0, 32, 28, 0.2, 1]]
    detector = Detector(write_detections(tmp_path / "model.onnx", rows, fixed=fixed))
    assert detector.network.max_detections == 3
    first, second = detector.predict([np.zeros((32, 32, 3), np.uint8)] * 2, conf=0.5, batch_size=2)
    np.testing.assert_allclose(first.boxes_xyxy_px, [[0, 0, 16, 16], [0, 0, 16, 15]])
    np.testing.assert_allclose(first.scores, [0.9, 0.8])
    assert (first.class_names, second.class_names) == (["c", "b"], ["c", "b"])
    (all_rows,) = detector.predict([np.zeros((32, 32, 3), np.uint8)], conf=0.1, iou=1, max_det=300)
    assert (len(all_rows), all_rows.reached_limit) == (3, True)


def test_detections_of_a_class_that_there_is_not(tmp_path):
    path = write_detections(tmp_path / "model.onnx", [[0, 0, 32, 32, 0.9, 3]])
    with pytest.raises(InputError, match="should give detections of the classes that it names, found"):
        Detector(path).predict(np.zeros((32, 32, 3), np.uint8))


def test_sizes_of_the_network_input(tmp_path):
    image = np.zeros((32, 96, 3), np.uint8)
    dynamic, fixed = Detector(write_raw(tmp_path / "a.onnx")), Detector(write_raw(tmp_path / "b.onnx", fixed=True))
    assert (dynamic.network_hw((33, 99), 96), fixed.network_hw((33, 99))) == ((32, 96), (64, 64))
    with pytest.raises(InputError, match="image size: must be a multiple of 8"):
        dynamic.predict(image, image_size=98)
    with pytest.raises(InputError, match=r"image size: .*b.onnx takes 64 only, found 96"):
        fixed.predict(image, image_size=96)


def test_what_an_exported_file_has_settled(tmp_path):
    path = write_raw(tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"the cost of an exported file is fixed; detect export --cost"):
        Detector(path).cost = 0.5
    with pytest.raises(InputError, match=r"model.onnx: has the number format that it was exported with"):
        Detector(path, precision="bf16")


@pytest.mark.parametrize(
    "level",
    [
        {"anchors_px": [[4, 4]], "xy_scale": 2, "sizes": "round"},
        {"anchors_px": [4, 4], "xy_scale": 2, "sizes": "square"},
        {"anchors_px": [[4, 4]], "sizes": "square"},
        {"anchors_px": [[4, "x"]], "xy_scale": 2, "sizes": "square"},
        7,
    ],
)
def test_levels_that_cannot_be_decoded(tmp_path, level):
    path = write_raw(tmp_path / "model.onnx", level)
    with pytest.raises(InputError, match=r"model.onnx: its metadata are incomplete or damaged"):
        Detector(path)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match=r"model.onnx: cannot be read: No such file"):
        Detector(path)
    whole = write_raw(tmp_path / "whole.onnx")
    path.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(InputError, match=r"model.onnx: is not an ONNX file, or is damaged"):
        Detector(path)
    model = onnx.load(whole)
    entries = {entry.key: entry for entry in model.metadata_props}
    entries["names"].value = "[not JSON"
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"model.onnx: its metadata are incomplete or damaged"):
        Detector(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"model.onnx: is not a file that detect export wrote"):
        Detector(path)
