"""Detectors of other toolkits: their kind by the shape of the output, their boxes and their classes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from detect.bench.foreign import ForeignNetwork, cell_grid
from detect.errors import InputError

SIDE = 32
CELLS = 16 + 4 + 1  # 4 x 4 of 8 px, 2 x 2 of 16 px, one of 32 px
NAMES = ("a", "b")


def write(path, output, names=None, side=SIDE, channels=3):
    """A file whose output is ``output`` plus the mean of the input, which is 0 for the padding less itself."""
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["largest", "factor"], ["zero"]),
        helper.make_node("Add", ["zero", "table"], ["out"]),
    ]
    constants = {"factor": np.float32(0), "table": np.asarray(output, np.float32)}
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, channels, side, side])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if names is not None:
        helper.set_model_props(model, {"names": names})
    onnx.save(model, path)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "other.onnx"


IMAGES = np.zeros((2, 24, 32, 3), np.uint8)


def test_cells():
    cells_xy, cell_px = cell_grid(SIDE)
    assert cells_xy.shape == (CELLS, 2)
    # Cell 5 is in the second row and column of the finest level; cell 18 in the second row of the next.
    assert cells_xy[[0, 5, 18, 20]].tolist() == [[0, 0], [1, 1], [0, 1], [0, 0]]
    assert cell_px[[15, 16, 19, 20], 0].tolist() == [8, 16, 16, 32]


def test_yolox(path):
    """Offset (0.5, 0.25) in cell (1, 1) of 8 px: centre (12, 10); exp(0) and exp(ln 2) cells: 8 x 16 px."""
    output = np.zeros((1, CELLS, 5 + 2))
    output[0, 5] = [0.5, 0.25, 0, np.log(2), 0.9, 0.1, 0.8]
    network = ForeignNetwork(write(path, output), NAMES)
    assert (network.names, network.image_size, network.padded_hw((24, 32))) == (NAMES, 32, (32, 32))
    found = network.predictions(IMAGES)
    assert found.shape == (2, CELLS, 7)
    np.testing.assert_allclose(found[1, 5], [12, 10, 8, 16, 0.9, 0.1, 0.8], rtol=1e-6)


def test_yolox_that_decodes_itself(path):
    output = np.zeros((1, CELLS, 5 + 2))
    output[0, 20] = [28, 20, 8, 16, 0.9, 0.1, 0.8]  # a centre beyond half of the image
    found = ForeignNetwork(write(path, output), NAMES).predictions(IMAGES[:1])
    np.testing.assert_allclose(found[0], output[0], rtol=1e-6)


def test_three_anchors(path):
    output = np.random.default_rng(0).random((1, 3 * CELLS, 5 + 2))
    found = ForeignNetwork(write(path, output), NAMES).predictions(IMAGES[:1])
    np.testing.assert_allclose(found, output, rtol=1e-6)


def test_without_objectness(path):
    output = np.random.default_rng(0).random((1, 4 + 2, CELLS))
    found = ForeignNetwork(write(path, output), NAMES).predictions(IMAGES[:1])
    np.testing.assert_allclose(found[0, :, [0, 1, 2, 3, 5, 6]], output[0], rtol=1e-6)
    assert (found[..., 4] == 1).all()


@pytest.mark.parametrize("names", ["{0: 'b', 1: 'a'}", '["b", "a"]', '{"0": "b", "1": "a"}'])
def test_its_own_classes(path, names):
    assert ForeignNetwork(write(path, np.zeros((1, CELLS, 7)), names), NAMES).names == ("b", "a")


@pytest.mark.parametrize("names", [None, "{0: 'x'}", "[1, 2]", "__import__('os')", "(" * 10_000])
def test_the_classes_of_the_data(path, names, caplog):
    assert ForeignNetwork(write(path, np.zeros((1, CELLS, 7)), names), NAMES).names == NAMES
    assert "does not name its classes; taken are the data's" in caplog.text


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        (np.zeros((1, CELLS, 8)), {}, "its 3 classes are unknown: .*, which has 2"),
        (np.zeros((1, CELLS + 1, 7)), {}, r"output \(1, 22, 7\) is of no known kind; known for 32 px"),
        (np.zeros((1, CELLS, 5)), {}, "is of no known kind"),
        (np.zeros((CELLS, 7)), {}, "is of no known kind"),
        (np.zeros((1, CELLS, 7)), {"channels": 1}, r"must have one input \(1, 3, S, S\) of floats"),
        (np.zeros((1, CELLS, 7)), {"side": 40}, "squares with a side that 32 divides, found 40 x 40"),
    ],
)
def test_refused(path, output, options, message):
    with pytest.raises(InputError, match=message):
        ForeignNetwork(write(path, output, **options), NAMES)


def test_another_file_is_refused(path):
    path.write_bytes(b"no network")
    with pytest.raises(InputError, match="is not an ONNX file, or is damaged"):
        ForeignNetwork(path, NAMES)
