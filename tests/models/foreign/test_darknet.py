from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from detect.errors import InputError
from detect.models.build import build_graph
from detect.models.foreign.darknet import DarknetFile, darknet_layers, load_darknet
from detect.models.graph import Graph
from tests.models.foreign import darknet_reference as reference
from tests.models.yamls import read_model, write_model

# stem: 4 biases, scales, means and variances and 4*3*1*1 = 12 weights: 28 values. top: the same for 6 channels, with
# 6*4*3*3 = 216 weights: 240. The head has 2 classes: 7 outputs; on stem 7 + 7*4 = 35 values, on top 7 + 7*6 = 49.
SMALL = """
name: small
backbone:
  - {name: stem, module: Conv, args: {out_channels: 4, stride: 2}}
neck:
  - {name: top, module: Conv, args: {out_channels: 6, kernel_size: 3, stride: 2}}
head:
  - {name: detect, module: AnchorDetect, from: [stem, top], args: {anchors_px: [[[4, 4]], [[9, 8]]]}}
"""
ORDER = ("layers.stem", "layers.detect.predict.0", "layers.top", "layers.detect.predict.1")
COUNTS = (28, 35, 240, 49)
HEADER = struct.pack("<3iq", 0, 2, 5, 640)


@pytest.fixture
def small(tmp_path: Path) -> Graph:
    torch.manual_seed(0)
    return build_graph(read_model(write_model(tmp_path, SMALL)), 2)


def values(count: int) -> bytes:
    """0, 1, 2, ... as the file has them."""
    return np.arange(count, dtype="<f4").tobytes()


def state_of(graph: Graph) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in graph.state_dict().items()}


# ------------------------------------------------------------------------------------------------- the order


def test_order_and_counts(small: Graph) -> None:
    """Layers as they run, each detection layer right behind the row that it reads."""
    layers = darknet_layers(small)
    assert tuple(layer.name for layer in layers) == ORDER
    assert tuple(layer.num_values for layer in layers) == COUNTS


def test_values_by_hand(small: Graph, tmp_path: Path) -> None:
    path = tmp_path / "small.weights"
    path.write_bytes(HEADER + values(352))
    assert load_darknet(small, path) == DarknetFile("0.2.5", 640, 4, 4, "layers.detect.predict.1", 0)
    state = small.state_dict()
    # The stem has 0 to 27, the finer detection layer 28 to 62, the row above it 63 to 302, the coarser one 303 to 351.
    expected = {
        "stem.norm.bias": range(4),
        "stem.norm.weight": range(4, 8),
        "stem.norm.running_mean": range(8, 12),
        "stem.norm.running_var": range(12, 16),
        "stem.conv.weight": range(16, 28),
        "detect.predict.0.bias": range(28, 35),
        "detect.predict.0.weight": range(35, 63),
        "top.norm.bias": range(63, 69),
        "top.conv.weight": range(87, 303),
        "detect.predict.1.bias": range(303, 310),
        "detect.predict.1.weight": range(310, 352),
    }
    for name, numbers in expected.items():
        assert state[f"layers.{name}"].flatten().tolist() == list(numbers), name


@pytest.mark.parametrize(
    ("name", "size"), [("yolov3", 248_007_048), pytest.param("yolov4", 257_717_640, marks=pytest.mark.slow)]
)
def test_published_sizes(name: str, size: int) -> None:
    """Bytes of the published files, 20 of them the header."""
    with torch.device("meta"):
        graph = build_graph(name, 80)
    assert 20 + 4 * sum(layer.num_values for layer in darknet_layers(graph)) == size


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in reference.SLOW else name for name in reference.CFGS]
)
def test_against_darknet(name: str, tmp_path: Path) -> None:
    """The file of a network run by another program gives the same outputs here, from the same values bit by bit."""
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    classes = 10 if name == "cspdarknet53" else 3
    cfg = reference.CFGS[name]
    expected = reference.run(cfg, image, classes if name == "cspdarknet53" else 3 * (5 + classes))
    path = reference.write(tmp_path / "model.weights", expected.weights)
    graph = build_graph(f"{name}+width={reference.WIDTH}", classes).eval()
    file = load_darknet(graph, path)
    assert (file.version, file.images_seen) == ("0.2.5", 32_013_312)
    assert file.num_layers == file.total_layers == len(expected.weights)
    for layer, tensors in zip(darknet_layers(graph), expected.weights, strict=True):
        for own, written in zip(layer.tensors, tensors, strict=True):
            assert torch.equal(own, written.view_as(own)), layer.name
    with torch.no_grad():
        raw = graph.double()(image)
    found = {y.shape[2:]: y for y in expected.outputs}
    for y in [raw] if isinstance(raw, torch.Tensor) else raw:
        y = y[..., None, None] if y.ndim == 2 else y.permute(0, 1, 4, 2, 3).flatten(1, 2)
        other = found[y.shape[2:]]
        assert other.abs().mean() > 1e-3  # values that say something
        torch.testing.assert_close(y, other, rtol=1e-9, atol=1e-9)


def test_the_version_says_how_long_the_header_is(small: Graph, tmp_path: Path) -> None:
    """Before 0.2 the images seen were a 32-bit number."""
    path = tmp_path / "old.weights"
    path.write_bytes(struct.pack("<4i", 0, 1, 0, 77) + values(352))
    file = load_darknet(small, path)
    assert (file.version, file.images_seen) == ("0.1.0", 77)
    assert small.state_dict()["layers.stem.norm.bias"].tolist() == [0, 1, 2, 3]


def test_space_to_depth_changes_nothing_of_the_order() -> None:
    """Its convolutions may run without a call to their module."""
    with torch.device("meta"):
        stride, spd = (build_graph(name, 2) for name in ("yolov5n+depth=0.1", "yolov5n-spd+depth=0.1"))
    assert [layer.name for layer in darknet_layers(spd)] == [layer.name for layer in darknet_layers(stride)]


def test_a_bias_in_front_of_a_norm_is_none_of_darknets() -> None:
    with pytest.raises(
        InputError, match=r"^vgg11-bn.*: layers\.\w+.* is a convolution with a bias in front of a batch"
    ):
        darknet_layers(build_graph("vgg11-bn+width=0.1", 1))


def test_decoupled_convolutions_are_none_of_darknets() -> None:
    with pytest.raises(
        InputError, match=r"^yolov3-tiny\+bdsc: layers\.\w+.* is a DecoupledConv, which no weights file"
    ):
        darknet_layers(build_graph("yolov3-tiny+bdsc", 1))


def test_models_that_darknet_cannot_have(tmp_path: Path) -> None:
    rows = SMALL.replace(
        "module: Conv, args: {out_channels: 4, stride: 2}", "module: DenseStage, args: {growth: 4, preactivation: true}"
    )
    graph = build_graph(read_model(write_model(tmp_path, rows)), 2)
    with pytest.raises(
        InputError, match=r"small: layers\.stem\..* is a convolution without bias and without a batch norm"
    ):
        darknet_layers(graph)


# ----------------------------------------------------------------------------------------- files that do not fit


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a Darknet weights file: it is empty$"),
        (HEADER[:12], "has 12 bytes, less than one layer"),
        (HEADER, "has a header and no values; small with 2 classes has 352$"),
        (
            HEADER + values(352)[:-2],
            r"ends inside layers\.detect\.predict\.1, layer 4 of 4 .*: 1 of its 49 values are missing, 1 of all$",
        ),
        (HEADER + b"\0", r"ends inside layers\.stem, layer 1 of 4 .*: 28 of its 28 values are missing, 352 of all$"),
        (
            HEADER + values(28) + b"\0",
            r"ends inside layers\.detect\.predict\.0, .*: 35 of its 35 values are missing, 324 of all$",
        ),
        (HEADER + values(352) + b"\0\0", "has 2 bytes more than the 352 values of small with 2 classes; it is damaged"),
        (b"PK\x03\x04" + bytes(100), r"it is an archive, as PyTorch writes it; name it with \.pt at its end$"),
        (b"<!doctype html>\n<html>", "it is a text file that starts with '<!doctype html>'$"),
        (
            struct.pack("<3iq", 0, -1, 0, 0) + values(352),
            r"its version would be 0\.-1\.0, and Darknet's are 0\.1 and 0\.2$",
        ),
        (struct.pack("<3iq", 9, 9, 9, 0) + values(352), r"its version would be 9\.9\.9"),
        (bytes(20) + values(352), r"its version would be 0\.0\.0"),
        (struct.pack("<3iq", 0, 2, 5, -64) + values(352), "its header would say that -64 images were seen"),
        (struct.pack("<4i", 0, 1, 0, -64) + values(352), "its header would say that -64 images were seen"),
        # Four bytes of the images seen, where there must be eight: the upper half is the first bias, 1.0.
        (struct.pack("<4if", 0, 2, 0, 640, 1) + values(351), "says? that 4,575,657,221,408,424,576 images were seen"),
        # 100 - 28 - 35 = 37 of the 240 values of top are there: 203 are missing, with the 49 behind it 252.
        (
            HEADER + values(100),
            r"ends inside layers\.top, layer 3 of 4 of small with 2 classes: 203 of its 240 values are missing, "
            r"252 of all$",
        ),
        (
            HEADER + values(10),
            r"ends inside layers\.stem, layer 1 of 4 .*: 18 of its 28 values are missing, 342 of all",
        ),
        (
            HEADER + values(63),
            r"ends behind layers\.detect\.predict\.0, layer 2 of 4 .*; --partial takes what is there",
        ),
        (HEADER + values(353), "has 1 values more than the 352 of small with 2 classes$"),
        # A class has 4 + 1 values on the finer and 6 + 1 on the coarser level: 3 classes more are 36 values more.
        (HEADER + values(388), "has 36 values more than the 352 .*; it would fit 5 classes$"),
        (HEADER + values(340), "ends inside layers.detect.predict.1.*; it would fit 1 classes$"),
    ],
)
def test_refused(small: Graph, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.weights"
    path.write_bytes(content)
    before = state_of(small)
    with pytest.raises(InputError, match=rf"bad\.weights: .*{message}"):
        load_darknet(small, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())


def test_not_finite(small: Graph, tmp_path: Path) -> None:
    path = tmp_path / "bad.weights"
    content = np.arange(352, dtype="<f4")
    content[70] = np.nan  # the batch norm of the row top starts at 63
    path.write_bytes(HEADER + content.tobytes())
    before = state_of(small)
    with pytest.raises(InputError, match=r"a value of layers\.top is not finite"):
        load_darknet(small, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())


@pytest.mark.parametrize(("place", "name"), [(12, "layers.stem"), (86, "layers.top")])
def test_negative_variances(small: Graph, tmp_path: Path, place: int, name: str) -> None:
    """The variances of the stem are 12 to 15, those of the row top 81 to 86; the values beside them may be negative."""
    path = tmp_path / "bad.weights"
    content = -np.arange(352, dtype="<f4")
    for part in (slice(12, 16), slice(81, 87)):
        content[part] = 0.5
    path.write_bytes(HEADER + content.tobytes())
    load_darknet(small, path)
    content[place] = -1e-6
    path.write_bytes(HEADER + content.tobytes())
    before = state_of(small)
    with pytest.raises(InputError, match=rf"bad\.weights: a running variance of {name} is negative"):
        load_darknet(small, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())


def test_missing(small: Graph, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.weights: cannot be read: No such file or directory"):
        load_darknet(small, tmp_path / "none.weights")


# ------------------------------------------------------------------------------------------- a part of a model


@pytest.mark.parametrize(("count", "layers", "last"), [(28, 1, "layers.stem"), (303, 3, "layers.top")])
def test_a_part(small: Graph, tmp_path: Path, count: int, layers: int, last: str) -> None:
    path = tmp_path / "start.conv.1"
    path.write_bytes(HEADER + values(count))
    before = state_of(small)
    assert load_darknet(small, path, partial=True) == DarknetFile("0.2.5", 640, layers, 4, last, 0)
    changed = {name for name, tensor in small.state_dict().items() if not torch.equal(before[name], tensor)}
    filled = {layer.name for layer in darknet_layers(small)[:layers]}
    assert {".".join(name.split(".")[: 4 if "predict" in name else 2]) for name in changed} == filled


def test_a_classifier_as_a_start(small: Graph, tmp_path: Path) -> None:
    """Behind the 28 values of the backbone: 11 classes of 4 weights and a bias, 55 values."""
    path = tmp_path / "classifier.weights"
    path.write_bytes(HEADER + values(28 + 55))
    assert load_darknet(small, path, partial=True) == DarknetFile("0.2.5", 640, 1, 4, "layers.stem", 11)
    assert small.state_dict()["layers.stem.conv.weight"].flatten().tolist() == list(range(16, 28))


def test_a_part_must_end_between_layers(small: Graph, tmp_path: Path) -> None:
    path = tmp_path / "start.weights"
    for content in (values(30), values(28) + b"\0"):
        path.write_bytes(HEADER + content)
        with pytest.raises(InputError, match=r"ends inside layers\.detect\.predict\.0"):
            load_darknet(small, path, partial=True)
