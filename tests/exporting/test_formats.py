"""Files of other formats than ONNX: the gate in their own runtimes, with a true file and with faults of each kind."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from detect.data.images import write_image
from detect.errors import InputError
from detect.evaluation.postprocess import PredictSettings
from detect.exporting import comparison_inputs
from detect.exporting.comparison_inputs import IMAGE_SHAPES, comparison_images
from detect.exporting.converters import (
    CONVERTERS,
    append_metadata,
    convert_litert,
    convert_ncnn,
    convert_openvino,
    export_converted,
    rename_blobs,
)
from detect.exporting.metadata import describe
from detect.exporting.options import ExportOptions
from detect.exporting.parity import ExportError, compare_file
from detect.exporting.wrappers import wrapped
from detect.inference.classifier import Classifier
from detect.inference.detector import Detector
from detect.inference.runtimes.formats import FORMATS, LITERT, NCNN, metadata_text, parse_metadata
from detect.inference.runtimes.ncnn import INPUT_HW
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from detect.models.model import fuse_conv_bn
from tests.exporting import exports
from tests.exporting.lively import enliven, find_everywhere, soften_outputs
from tests.inference.test_cold_start import UNLOADED, output_of

FROM_ONNX = ("openvino", "ncnn")
SIZE = 96


@pytest.fixture(params=FROM_ONNX)
def kind(request):
    """A format that is made of an ONNX file."""
    exports.require_converter(request.param)
    return FORMATS[request.param]


@pytest.fixture(params=CONVERTERS)
def any_kind(request):
    """Each format, and whether its files can take images of any size."""
    exports.require_converter(request.param)
    return FORMATS[request.param], CONVERTERS[request.param].dynamic


@pytest.fixture
def few_images(monkeypatch):
    """The small ones, which show each fault."""
    monkeypatch.setattr(comparison_inputs, "IMAGE_SHAPES", IMAGE_SHAPES[:5])
    monkeypatch.setattr(comparison_inputs, "BATCHES", ((2, 0),))


def options_of(kind):
    """A detector's maps, which both formats can hold, of any size."""
    return ExportOptions(image_size=SIZE, raw=True, format=kind)


def convert(kind, checkpoint, folder, edit=None, metadata=None):
    """A file made of the ONNX file of the detector, changed by ``edit``, with entries of the metadata replaced."""
    graph, path = folder / "graph.onnx", folder / kind.file_name
    model = onnx.load_model_from_string(exports.export("raw")[0])
    if kind is NCNN:  # pnnx needs one size
        for value in (*model.graph.input, *model.graph.output):
            for dim, side in zip(value.type.tensor_type.shape.dim[2:], sides_of(value.name), strict=True):
                dim.dim_value = side
            value.type.tensor_type.shape.dim[0].dim_value = 1
    if edit is not None:
        edit(model.graph)
    onnx.save(model, graph)
    facts = describe(checkpoint, options_of(kind)) | {INPUT_HW: "null"} | (metadata or {})
    (convert_ncnn if kind is NCNN else convert_openvino)(graph, path, facts, half=False)
    return path


def sides_of(name):
    """Height and width of the images, or of a map such as ``raw_8``."""
    return (SIZE, SIZE) if name == "images" else (SIZE // int(name.split("_")[1]),) * 2


@pytest.fixture
def true_file(kind, checkpoint, tmp_path):
    return convert(kind, checkpoint, tmp_path)


def test_a_true_file(kind, checkpoint, true_file):
    parity = compare_file(checkpoint, true_file, options_of(kind))
    assert parity.good
    assert (parity.images, len(parity.shapes), parity.unmatched) == (8 + 2 + 5, 8, 0)
    assert parity.detections > 100


def test_damaged_files(kind, true_file):
    """A weights file of another export, or none; no file at all."""
    beside = true_file.with_suffix(".bin")
    content = bytearray(beside.read_bytes())
    content[-1] ^= 1
    beside.write_bytes(content)
    with pytest.raises(InputError, match=r"\.bin: is cut off, damaged or of another export than .*; export it again"):
        Detector(true_file)
    beside.unlink()
    with pytest.raises(InputError, match=r"(\.bin: cannot be read \(No such|is not an OpenVINO file, or is damaged)"):
        Detector(true_file)
    with pytest.raises(InputError, match=r"missing\.\w+: cannot be read"):
        Detector(true_file.with_name(f"missing{kind.suffix}"))
    true_file.write_text("<a><b/></a>")
    with pytest.raises(InputError, match=r"is not an OpenVINO file|is cut off, damaged or of another export"):
        Detector(true_file)


@pytest.mark.parametrize("name", CONVERTERS)
def test_another_device(name, tmp_path):
    title, path = FORMATS[name].title, tmp_path / FORMATS[name].file_name
    path.touch()
    with pytest.raises(InputError, match=rf"{title} runs on the CPU here, found --device cuda; take cpu"):
        Detector(path, "cuda")


def test_names_of_blobs():
    """Type, name, one input, two outputs, then the parameters, which stay even if they are like a name."""
    text = "7767517\n2 3\nInput in0 0 1 in0\nSlice s0 1 2 in0 out0 out1 -23300=2,-233,-233 out1\n"
    names = {"in0": "images", "out0": "raw_8", "out1": "raw_16"}
    lines = rename_blobs(text, names).splitlines()
    assert lines[:2] == ["7767517", "2 3"]
    assert lines[2:] == ["Input in0 0 1 images", "Slice s0 1 2 images raw_8 raw_16 -23300=2,-233,-233 out1"]


def test_metadata_as_a_file(checkpoint, tmp_path):
    """Texts stay texts, lists become lists; what is read is what was written."""
    metadata = describe(checkpoint, options_of(NCNN)) | {INPUT_HW: "null"}
    text = metadata_text(metadata)
    assert json.loads(text)["names"] == list(exports.NAMES)
    assert json.loads(text)["image_size"] == str(SIZE)
    found = parse_metadata(text.encode(), tmp_path)
    assert found.keys() == metadata.keys()
    for key, value in metadata.items():
        assert found[key] == value or json.loads(found[key]) == json.loads(value)
    for content in (b"", b"[]", b"{", b"\xff", b"[" * 10_000):
        with pytest.raises(InputError, match="its metadata are damaged; export it again"):
            parse_metadata(content, tmp_path)


def test_another_version(kind, checkpoint, tmp_path):
    path = convert(kind, checkpoint, tmp_path, metadata={"format": "detect-onnx-1"})
    with pytest.raises(InputError, match=rf"is not a file that detect export wrote \(format detect-{kind.name}-1\)"):
        Detector(path)


# ------------------------------------------------------------------------------------------ faults, one at a time


def stem(graph):
    """The first convolution's weights (O, 3, h, w)."""
    tensor = next(tensor for tensor in graph.initializer if len(tensor.dims) == 4 and tensor.dims[1] == 3)
    return tensor, onnx.numpy_helper.to_array(tensor)


def put(tensor, values):
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))


def bgr(graph):
    tensor, values = stem(graph)
    put(tensor, values[:, ::-1])


def bytes_in(graph):
    """Made for pixels from 0 to 255."""
    tensor, values = stem(graph)
    put(tensor, values / np.float32(255))


def shifted(graph):
    """Each centre a tenth of a logit to the right: the biases of the last convolution."""
    node = next(node for node in graph.node if node.output[0] == graph.output[-1].name)
    tensor = next(tensor for tensor in graph.initializer if tensor.name == node.input[2])
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[:: len(values) // 3] += 0.1
    put(tensor, values)


def swapped(graph):
    """Columns of the boxes, x and y, in the other order: the filters of the last convolution."""
    node = next(node for node in graph.node if node.output[0] == graph.output[-1].name)
    for name in node.input[1:]:
        tensor = next(tensor for tensor in graph.initializer if tensor.name == name)
        values = onnx.numpy_helper.to_array(tensor).copy()
        values[[0, 1]] = values[[1, 0]]
        put(tensor, values)


def black(metadata):
    return {"preprocessing": metadata["preprocessing"].replace("114", "0")}


def other_names(metadata):
    names = json.loads(metadata["names"])
    return {"names": json.dumps(names[::-1])}


def other_levels(metadata):
    """The anchors of the levels changed places."""
    output = json.loads(metadata["output"])
    first, second = output["levels"]
    first["anchors_px"], second["anchors_px"] = second["anchors_px"], first["anchors_px"]
    return {"output": json.dumps(output)}


FAULTS = {
    "colour order": (bgr, None),
    "scale": (bytes_in, None),
    "shifted box": (shifted, None),
    "swapped outputs": (swapped, None),
    "padding": (None, black),
    "class table": (None, other_names),
    "anchors of another level": (None, other_levels),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("few_images")
def test_each_fault_is_seen(kind, checkpoint, tmp_path, fault):
    edit, change = FAULTS[fault]
    metadata = None if change is None else change(describe(checkpoint, options_of(kind)))
    path = convert(kind, checkpoint, tmp_path, edit, metadata)
    if fault == "class table":
        with pytest.raises(ExportError, match="the exported file's classes are"):
            compare_file(checkpoint, path, options_of(kind))
    else:
        assert not compare_file(checkpoint, path, options_of(kind)).good


# --------------------------------------------------------------------------------- faults of a LiteRT file


class Changed(nn.Module):
    """A detector's maps with a change of the images, or of the last map (1, A * 8, h, w)."""

    def __init__(self, model, fault):
        super().__init__()
        self.network, self.fault = wrapped(fuse_conv_bn(model), raw=True), fault

    def forward(self, images):
        if self.fault == "colour order":
            images = images.flip(1)
        if self.fault == "scale":
            images = images * (1 / 255)
        *others, last = self.network(images)
        columns = last.reshape(1, 3, 8, *last.shape[2:])
        if self.fault == "shifted box":
            columns = torch.cat([columns[:, :, :1] + 0.1, columns[:, :, 1:]], dim=2)
        if self.fault == "swapped outputs":
            columns = torch.cat([columns[:, :, 1:2], columns[:, :, :1], columns[:, :, 2:]], dim=2)
        return [*others, columns.reshape(last.shape)]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("few_images")
def test_each_fault_of_litert_is_seen(checkpoint, tmp_path, fault):
    exports.require_converter("litert")
    options = ExportOptions(image_size=SIZE, raw=True, dynamic=False, format=LITERT)
    _, change = FAULTS[fault]
    metadata = describe(checkpoint, options)
    path = tmp_path / "model.tflite"
    convert_litert(Changed(checkpoint.model, fault), SIZE, path)
    append_metadata(path, metadata | (change(metadata) if change else {}), checkpoint.names)
    if fault == "class table":
        with pytest.raises(ExportError, match="the exported file's classes are"):
            compare_file(checkpoint, path, options)
    else:
        assert not compare_file(checkpoint, path, options).good


# -------------------------------------------------------------------------------------------- whole exports


@pytest.mark.slow
def test_a_wrong_file_is_not_written(any_kind, checkpoint, tmp_path, monkeypatch):
    """An older export stays as it is."""
    kind, dynamic = any_kind
    path = tmp_path / kind.file_name
    for file in kind.files(path):
        file.write_text("older")
    monkeypatch.setattr("detect.exporting.metadata.PAD_VALUE", 0)
    with exports.exporter_once(), pytest.raises(ExportError, match=r"not written, because its outputs differ"):
        export_converted(checkpoint, path, ExportOptions(format=kind, dynamic=dynamic))
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        file.name: "older" for file in kind.files(path)
    }


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"dynamic": False}, {"half": True}])
def test_an_export(any_kind, checkpoint, tmp_path, change):
    """Its files, and what ``Detector`` finds with them."""
    kind, can_be_dynamic = any_kind
    if not can_be_dynamic:
        change = {"dynamic": False}
    path = tmp_path / kind.file_name
    with exports.exporter_once():
        parity = export_converted(checkpoint, path, replace(ExportOptions(format=kind), **change))
    assert parity.good
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in kind.files(path)}
    image = np.ascontiguousarray(comparison_images()[6][:, :375])  # square: a fixed size has no more padding
    expected, found = (Detector(weights, "cpu").predict(image, conf=0.2) for weights in (checkpoint, path))
    assert len(found) > 5
    if not change.get("half"):
        np.testing.assert_allclose(found.boxes_xyxy_px, expected.boxes_xyxy_px, atol=0.01)
        assert found.class_names == expected.class_names


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [True, False])
def test_a_classifier(any_kind, classifier, tmp_path, dynamic):
    kind, can_be_dynamic = any_kind
    path = tmp_path / kind.file_name
    with exports.exporter_once():
        options = ExportOptions(format=kind, dynamic=dynamic and can_be_dynamic)
        assert export_converted(classifier, path, options).good
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    expected, found = (Classifier(weights, "cpu").predict(image) for weights in (classifier, path))
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["anchor-free", "task-aligned"])
def test_without_anchors(any_kind, tmp_path, head):
    """A head of YOLOX's kind, and one whose boxes are distributions of distances.

    Softened twice: sides of untrained networks are exponentials of which rounding is more than the gate allows.
    """
    kind, dynamic = any_kind
    torch.manual_seed(2)
    model = build_model(f"yolov5n-spd+{head}", num_classes=3).train()
    enliven(model)
    find_everywhere(model)
    soften_outputs(model, 0.2)
    facts = {"category_ids": (1, 2, 3), "image_size": 64, "metrics": {}, "provenance": {}}
    save_checkpoint(tmp_path / "model.pt", model, names=("a", "b", "c"), **facts)
    checkpoint, path = load_checkpoint(tmp_path / "model.pt"), tmp_path / kind.file_name
    options = ExportOptions(format=kind, dynamic=dynamic)
    assert export_converted(checkpoint, path, options).good


@pytest.mark.slow
def test_without_pytorch(any_kind, checkpoint, tmp_path):
    """A process that opens a file and predicts."""
    kind, dynamic = any_kind
    path = tmp_path / kind.file_name
    with exports.exporter_once():
        export_converted(checkpoint, path, ExportOptions(format=kind, dynamic=dynamic))
    write_image(tmp_path / "photo.png", comparison_images()[4])
    code = f"from detect import Detector\nprint(len(Detector({path.name!r}).predict('photo.png')))\n"
    count, loaded = output_of(code + UNLOADED, tmp_path)
    assert int(count) > 5
    assert loaded == "[]"


# -------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"suppression": PredictSettings()}, "--nms"),
        ({"int8": True}, "--int8"),
        ({"masks": "packed"}, "--masks packed"),
        ({"opset": 20}, "--opset"),
        ({"int8": True, "opset": 17}, "--int8, --opset"),
    ],
)
@pytest.mark.parametrize("name", CONVERTERS)
def test_options_of_onnx_alone(checkpoint, tmp_path, name, change, named):
    options = replace(ExportOptions(format=FORMATS[name], dynamic=CONVERTERS[name].dynamic), **change)
    with pytest.raises(InputError, match=rf"{named}: not with --format {name}; leave it out, or take --format onnx"):
        export_converted(checkpoint, tmp_path / FORMATS[name].file_name, options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", CONVERTERS)
def test_a_missing_package_names_the_extra(checkpoint, tmp_path, monkeypatch, name):
    """Of the runtime, when a file is written and when one is opened."""
    kind = FORMATS[name]
    package = kind.packages[0]
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    path = tmp_path / kind.file_name
    with pytest.raises(InputError, match=rf"needs .*{package}: pip install 'detect-small\[{kind.extra}\]'$"):
        export_converted(checkpoint, path, ExportOptions(format=kind, dynamic=CONVERTERS[name].dynamic))
    path.touch()
    with pytest.raises(InputError, match=rf"{path.name} needs {package}: pip install 'detect-small\[{kind.extra}\]'$"):
        Detector(path)


def test_another_suffix(checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"model\.onnx: a file of OpenVINO must end with \.xml"):
        export_converted(checkpoint, tmp_path / "model.onnx", ExportOptions(format=FORMATS["openvino"]))
