"""Raw files: what the head says, and all that is needed to make boxes of it."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from detect.errors import InputError
from detect.exporting import comparison_inputs
from detect.exporting.onnx import export_onnx
from detect.exporting.onnx_runner import OnnxModel
from detect.exporting.options import ExportOptions
from detect.exporting.parity import compare_file
from detect.exporting.wrappers import wrapped
from detect.inference.runtimes.onnx_runtime import OnnxNetwork
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from detect.papers.sdpoint.transform import Instance, use_instance
from tests.models.yamls import TINY, write_model
from tests.papers.sdpoint.samples import detector

OPTIONS = ExportOptions(image_size=96, raw=True)
YOLOV3 = TINY.replace("{anchors_px:", "{coding: yolov3, xy_scale: [1.2, 1.05], anchors_px:")


def run(path, images):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images})


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 3, 64, 160)])
def test_any_batch_height_and_width(checkpoint, raw, shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = checkpoint.model(images)
    found = run(raw, images.numpy())
    for stride, one, other in zip((4, 8), expected, found, strict=True):
        batch, _, height, width = shape
        assert other.shape == (batch, 3 * (5 + 3), height // stride, width // stride)
        # Anchor 1, objectness: the fifth of the second eight.
        np.testing.assert_allclose(other[:, 8 + 4], one[:, 1, :, :, 4], atol=2e-3)
        np.testing.assert_allclose(other[:, 2 * 8 + 7], one[:, 2, :, :, 7], atol=2e-3)


def test_the_outputs_are_the_convolutions(raw):
    """Nothing stands between the head's convolutions and the outputs: no transposition, no reshaping."""
    graph = onnx.load(raw).graph
    assert [value.name for value in graph.output] == ["raw_4", "raw_8"]
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    assert [made_by[value.name] for value in graph.output] == ["Conv"] * 2
    dims = [dim.dim_param or dim.dim_value for dim in graph.output[1].type.tensor_type.shape.dim]
    assert dims == ["batch", 24, "height/8", "width/8"]


def test_metadata(raw):
    says = json.loads({entry.key: entry.value for entry in onnx.load(raw).metadata_props}["output"])
    assert says["columns"][:5] == ["x", "y", "width", "height", "objectness"]
    assert says["levels"][0] == {
        "name": "raw_4",
        "stride": 4,
        "xy_scale": 2.0,
        "sizes": "square",
        "offsets": "sigmoid",
        "anchors_px": [[10.0, 13.0], [16.0, 30.0], [33.0, 23.0]],
    }
    assert [level["stride"] for level in says["levels"]] == [4, 8]
    assert set(says["sizes"]) == {"square", "exp", "distances"}


def decoded_by_runner(level, maps, input_hw):
    output = {"levels": [level], "max_log_ratio": math.log(1000)}
    return OnnxModel.decoded(SimpleNamespace(output=output), [maps], input_hw)


@pytest.mark.parametrize(
    ("level", "box"),
    [
        # Sigmoid 0.75 and 0.5. Centre x (2 * 0.75 - 0.5 + 1) * 8 = 16, y (1 - 0.5 + 0) * 8 = 4; width (2 * 0.75)^2 * 10
        # = 22.5, height (2 * 0.5)^2 * 20 = 20.
        ({"xy_scale": 2.0, "sizes": "square"}, [16, 4, 22.5, 20]),
        # x (1.2 * 0.75 - 0.1 + 1) * 8 = 14.4, y (1.2 * 0.5 - 0.1) * 8 = 4; exp(log 3) = 3 and exp(0) = 1 anchors.
        ({"xy_scale": 1.2, "sizes": "exp", "offsets": "sigmoid"}, [14.4, 4, 30, 20]),
        # x (log 3 + 1) * 8, y (0 + 0) * 8.
        ({"xy_scale": 1.0, "sizes": "exp", "offsets": "linear"}, [8 * math.log(3) + 8, 0, 30, 20]),
        # The cell's centre is (12, 4); left and right are 3 - 1 anchors of 10 px away, top and bottom none.
        ({"xy_scale": 1.0, "sizes": "distances", "offsets": "distances"}, [12, 4, 40, 2 / math.e]),
    ],
)
def test_decoding_by_hand(level, box):
    """One row of two cells of 8 px; the second cell's values are log 3 (sigmoid 0.75) and 0 (sigmoid 0.5)."""
    level["anchors_px"] = [[10.0, 20.0]]
    maps = np.full((1, 6, 1, 2), -200, np.float32)  # far below what exp can take
    maps[0, :, 0, 1] = np.array([math.log(3), 0, math.log(3), 0, math.log(3), 0])
    with np.errstate(all="raise", under="ignore"):
        found = decoded_by_runner(level, maps, (8, 16))
    assert found.shape == (1, 2, 6)
    np.testing.assert_allclose(found[0, 1], [*box, 0.75, 0.5], rtol=1e-6)
    assert found[0, 0, 4] == 0


def test_sides_have_an_end():
    level = {"xy_scale": 1.0, "sizes": "exp", "anchors_px": [[10.0, 20.0]]}
    found = decoded_by_runner(level, np.full((1, 6, 1, 1), 1000, np.float32), (32, 32))
    np.testing.assert_allclose(found[0, 0, 2:4], [10_000, 20_000], rtol=1e-6)


@pytest.mark.parametrize(
    ("word", "value"),
    [("xy_scale", 1.0), ("sizes", "exp"), ("anchors_px", [[10.0, 13.0], [16.0, 30.0], [33.0, 24.0]])],
)
def test_a_wrong_word_in_the_metadata_is_seen(checkpoint, raw, tmp_path, monkeypatch, word, value):
    model = onnx.load(raw)
    entry = next(entry for entry in model.metadata_props if entry.key == "output")
    says = json.loads(entry.value)
    assert says["levels"][0][word] != value
    says["levels"][0][word] = value
    entry.value = json.dumps(says)
    onnx.save(model, tmp_path / "edited.onnx")
    monkeypatch.setattr(comparison_inputs, "IMAGE_SHAPES", comparison_inputs.IMAGE_SHAPES[:5])  # the small ones
    assert not compare_file(checkpoint, tmp_path / "edited.onnx", OPTIONS).good


def test_a_true_file(checkpoint, raw):
    assert compare_file(checkpoint, raw, OPTIONS).good


def test_levels_in_another_order_are_seen(checkpoint, raw, tmp_path):
    model = onnx.load(raw)
    outputs = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in model.graph.output]
    del model.graph.output[:]
    model.graph.output.extend(outputs[::-1])
    onnx.save(model, tmp_path / "edited.onnx")
    assert not compare_file(checkpoint, tmp_path / "edited.onnx", OPTIONS).good


def saved(folder, yaml, **words):
    """A tiny checkpoint that finds something everywhere."""
    torch.manual_seed(1)
    model = build_model(str(write_model(folder, yaml)), num_classes=3)
    with torch.no_grad():
        for conv in model.head.predict:
            conv.weight.mul_(4)
            conv.bias.view(model.head.anchors_px.shape[1], -1)[:, 4:] = 0
    facts = {"names": ("a", "b", "c"), "category_ids": (1, 2, 3), "metrics": {}, "provenance": {}}
    save_checkpoint(folder / "best.pt", model, image_size=64, **facts, **words)
    return load_checkpoint(folder / "best.pt")


@pytest.mark.parametrize(
    ("yaml", "half"),
    [
        pytest.param(TINY, False, marks=pytest.mark.slow),
        pytest.param(TINY, True, marks=pytest.mark.slow),
        pytest.param(YOLOV3, False, marks=pytest.mark.slow),
        pytest.param(YOLOV3, True, marks=pytest.mark.slow),
    ],
    ids=["yolov5", "yolov5-half", "yolov4", "yolov4-half"],
)
def test_each_coding_and_precision(tmp_path, yaml, half):
    """The gate lets it through, and ``OnnxNetwork`` decodes to what PyTorch does."""
    checkpoint = saved(tmp_path, yaml)
    path = tmp_path / "model.onnx"
    assert export_onnx(checkpoint, path, ExportOptions(raw=True, half=half)).detections > 100
    images = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = torch.from_numpy(OnnxNetwork(path, "cpu").predictions(images.numpy()))
    with torch.inference_mode():
        pixels = images.permute(0, 3, 1, 2).float() / 255
        expected = checkpoint.model.decode(checkpoint.model(pixels))
    torch.testing.assert_close(found, expected, atol=0.5 if half else 1e-3, rtol=0.03 if half else 1e-5)
    assert found.dtype == torch.float32


def test_decoding_of_an_instance_of_sdpoint(tmp_path):
    """Behind a shrunken map a cell has more input pixels than its level's name says."""
    model = detector(tmp_path, way="shrink").model
    use_instance(model, Instance(1, 0.5))
    images = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        found, maps = wrapped(model)(images), model(images)
        assert torch.equal(found, model.decode(maps, (32, 32)))
        assert not torch.equal(found, model.decode(maps))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "sizes_hw"),
    [("shrink", [(8, 8), (4, 4)]), ("restore", [(16, 16), (8, 8)])],  # as without the point where maps are restored
)
def test_an_instance_of_sdpoint(tmp_path, way, sizes_hw):
    checkpoint = detector(tmp_path, way=way)
    use_instance(checkpoint.model, Instance(1, 0.5))
    path = tmp_path / "model.onnx"
    assert export_onnx(checkpoint, path, ExportOptions(raw=True, dynamic=False)).good
    maps = run(path, np.zeros((1, 3, 32, 32), np.float32))
    assert [level.shape[2:] for level in maps] == sizes_hw


def test_classifiers_are_refused(classifier, tmp_path):
    with pytest.raises(InputError, match="raw: tiny-classifier is a classifier; raw maps are for detectors"):
        export_onnx(classifier, tmp_path / "model.onnx", ExportOptions(raw=True))
    assert list(tmp_path.iterdir()) == []


def test_suppression_of_raw_maps_is_refused(checkpoint, suppressed, tmp_path):
    options = ExportOptions(raw=True, suppression=suppressed[1].suppression)
    with pytest.raises(InputError, match="raw: non-maximum suppression needs boxes"):
        export_onnx(checkpoint, tmp_path / "model.onnx", options)
