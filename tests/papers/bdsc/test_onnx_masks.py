"""Binary weights as bits in a graph: small ones by hand, and those of exported files."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from detect.errors import InputError
from detect.exporting.onnx import OPSETS, check_masks, export_onnx
from detect.exporting.options import ExportOptions, masks_note
from detect.exporting.parity import ExportError
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from detect.models.packing import packed_layers
from detect.papers.bdsc.convolutions import MaskConv
from detect.papers.bdsc.onnx_masks import pack_masks
from tests.exporting.conftest import classifier, folded, packed
from tests.models.yamls import TINY, write_model

__all__ = ["classifier", "folded", "packed"]  # fixtures

KEY = "0.weight"
NAME = f"model.{KEY}"


def masked(q: torch.Tensor) -> nn.Sequential:
    """A model whose only weights are binary, Q being (O, S, k, k)."""
    num_out, hidden, k, _ = q.shape
    model = nn.Sequential(MaskConv(hidden, nn.Conv2d(1, num_out, k, bias=False), binary=True))
    model.load_state_dict({KEY: q})
    return model


def adds(weight: np.ndarray, opset: int = 18) -> onnx.ModelProto:
    """A graph that adds input x (1,) and a stored weight; it may be packed as the weight of ``masked``."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", NAME], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(weight.shape))],
        [numpy_helper.from_array(weight, NAME)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The initialisers by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def run(model: onnx.ModelProto, optimised: bool = True) -> np.ndarray:
    """The output for x = 0, by ONNX Runtime; not optimised, it unpacks at each run."""
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.zeros(1, np.float32)})[0]


@pytest.mark.parametrize("opset", OPSETS)
def test_by_hand(opset: int) -> None:
    """Signs + - - + + - + - - of the first output and - + + + + + + + + of the second, whose scale is negative.

    1001 1010 0|011 1111 11 and six zeros: 0x9a, 0x3f, 0xc0.
    """
    first, second = (0.5, -0.5, -0.25, 0.0, 1.0, -1.0, 0.25, -0.25, -0.125), (-1.0, *(1.0,) * 8)
    q = torch.tensor([first, second]).view(2, 1, 3, 3)
    signs = np.array([[1, -1, -1, 1, 1, -1, 1, -1, -1], [-1, *(1,) * 8]], np.float32).reshape(2, 1, 3, 3)
    weight = signs * np.array([0.75, -2.5], np.float32).reshape(2, 1, 1, 1)
    model = adds(weight, opset)
    pack_masks(model, masked(q))
    onnx.checker.check_model(model, full_check=True)
    tensors = stored(model)
    assert NAME not in tensors
    assert (tensors[f"{NAME}_bits"].dtype, tensors[f"{NAME}_bits"].tolist()) == (np.uint8, [0x9A, 0x3F, 0xC0])
    assert (tensors[f"{NAME}_scale"].dtype, tensors[f"{NAME}_scale"].tolist()) == (np.float32, [[[[0.75]]], [[[-2.5]]]])
    for optimised in (True, False):
        np.testing.assert_array_equal(run(model, optimised), weight)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 8, 1, 1), (3, 5, 3, 3), (7, 4, 6, 6)])
def test_any_number_of_signs(shape: tuple[int, int, int, int]) -> None:
    rng = np.random.default_rng(0)
    q = rng.standard_normal(shape).astype(np.float32)
    weight = np.where(q < 0, -1, 1) * rng.standard_normal((shape[0], 1, 1, 1)).astype(np.float32)
    model = adds(weight.astype(np.float32))
    pack_masks(model, masked(torch.from_numpy(q)))
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(run(model), weight)


def test_outputs_of_nothing_have_a_scale_of_0() -> None:
    """A norm's factor of 0 has been melted in: the weights are +-0, the signs are still those of Q."""
    model = adds(np.zeros((1, 2, 1, 1), np.float32))
    pack_masks(model, masked(torch.tensor([-0.5, 0.5]).view(1, 2, 1, 1)))
    assert stored(model)[f"{NAME}_bits"].tolist() == [0b01000000]
    np.testing.assert_array_equal(run(model), np.zeros((1, 2, 1, 1)))


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        (NAME, [1.0, -1.0]),  # another sign
        (NAME, [1.0, 2.0]),  # two magnitudes
        (NAME, [1.0]),
        ("weight", [1.0, 1.0]),
    ],
)
def test_what_the_exporter_has_changed_is_refused(name: str, weight: list[float]) -> None:
    model = adds(np.array(weight, np.float32).reshape(1, -1, 1, 1))
    model.graph.initializer[0].name = name
    with pytest.raises(ExportError, match=r"exporter does not store model\.0\.weight as it is; take the folded form"):
        pack_masks(model, masked(torch.ones(1, 2, 1, 1)))


# ------------------------------------------------------------------------------------------ exported files


@pytest.mark.slow
def test_the_bits_are_the_signs_of_q(classifier, packed) -> None:
    model = onnx.load(packed[0])
    tensors, names = stored(model), packed_layers(classifier.model)
    assert len(names) == 4
    for name, layer in names.items():
        shape = layer.weight.shape
        q = classifier.model.get_parameter(name).detach().numpy()
        np.testing.assert_array_equal(tensors[f"model.{name}_bits"], np.packbits(~(q < 0)))
        assert tensors[f"model.{name}_scale"].shape == (shape[0], 1, 1, 1)
        assert f"model.{name}" not in tensors
    assert min(tensors[f"model.{name}_scale"].min() for name in names) < 0, "norms with negative factors"


@pytest.mark.slow
def test_the_forms_differ_in_the_masks_only(folded, packed) -> None:
    """Everything else in the file is byte for byte the same, and so is what ONNX Runtime makes of it."""
    first, second = stored(onnx.load(folded[0])), stored(onnx.load(packed[0]))
    for name in first.keys() & second.keys():
        np.testing.assert_array_equal(first[name], second[name])
    assert all(name.endswith("spatial.weight") for name in first.keys() - second.keys())
    images = np.random.default_rng(0).random((3, 3, 20, 28), dtype=np.float32)
    outputs = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]
        for path, _ in (folded, packed)
    ]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.slow
def test_the_packed_file_is_smaller(classifier, folded, packed) -> None:
    """By 31 of 32 bits of each sign, less the table of bytes (8 KiB), a scale for each output, nodes and names."""
    signs = sum(layer.weight.numel() for layer in packed_layers(classifier.model).values())
    saved = folded[0].stat().st_size - packed[0].stat().st_size
    assert 4 * signs - signs / 8 - 8192 - 6000 < saved < 4 * signs - signs / 8


@pytest.mark.slow
def test_a_detector(tmp_path) -> None:
    """The whole way, its predictions compared with those of PyTorch."""
    torch.manual_seed(0)
    model = build_model(str(write_model(tmp_path, TINY + "conv: {kind: bdsc, p: 1}\n")), num_classes=2)
    facts = {"names": ("a", "b"), "category_ids": (1, 2), "image_size": 32, "metrics": {}, "provenance": {}}
    save_checkpoint(tmp_path / "model.pt", model, **facts)
    assert export_onnx(
        load_checkpoint(tmp_path / "model.pt"), tmp_path / "model.onnx", ExportOptions(masks="packed")
    ).good
    (name,) = packed_layers(model)
    q = model.get_parameter(name).detach().numpy()
    np.testing.assert_array_equal(stored(onnx.load(tmp_path / "model.onnx"))[f"model.{name}_bits"], np.packbits(q >= 0))


@pytest.mark.parametrize("words", ["", "conv: {kind: bdsc-float, p: 1}\n", "conv: {kind: depthwise}\n"])
def test_only_binary_weights_can_be_packed(tmp_path, words: str) -> None:
    model = build_model(str(write_model(tmp_path, TINY + words)), num_classes=2)
    check_masks(model, "folded")
    assert masks_note(model, "folded") is None
    with pytest.raises(InputError, match=r"^masks: packed needs binary weights \(conv: bdsc\), tiny has none; take"):
        check_masks(model, "packed")


def test_notes(classifier) -> None:
    assert "the file smaller, not faster" in masks_note(classifier.model, "folded")
    assert "computes the same ordinary convolutions" in masks_note(classifier.model, "packed")
