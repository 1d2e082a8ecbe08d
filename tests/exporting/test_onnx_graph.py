"""Tidying of graphs: small ones, whose result is known."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from detect.exporting.onnx_graph import expand_softmax, fold_constants, remove_traces, shrink_constants


def make_model(nodes, weights):
    """A model of input x (2,) and output y (2,), opset 18."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.array(values), name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def run(model):
    (y,) = ReferenceEvaluator(model).run(None, {"x": np.array([1, 2], np.float32)})
    return y.tolist()


def test_nothing_to_fold():
    model = make_model([helper.make_node("Neg", ["x"], ["y"])], {})
    before = model.SerializeToString(deterministic=True)
    fold_constants(model)
    assert model.SerializeToString(deterministic=True) == before


def test_chain_with_several_outputs():
    """w = [1, 2, 10, 20] is split into [1, 2] and [10, 20]; the second half, negated, is added to x."""
    nodes = [
        helper.make_node("Split", ["w", "sizes"], ["first", "second"]),
        helper.make_node("Neg", ["second"], ["negative"]),
        helper.make_node("Add", ["x", "negative"], ["y"]),
    ]
    weights = {"w": np.array([1, 2, 10, 20], np.float32), "sizes": np.array([2, 2]), "unused": np.zeros(1, np.float32)}
    model = make_model(nodes, weights)
    assert run(model) == [1 - 10, 2 - 20]
    fold_constants(model)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Add"]
    assert {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in model.graph.initializer} == {
        "negative": [-10, -20]
    }
    assert run(model) == [-9, -18]


def test_what_depends_on_the_input_stays():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Expand", ["one", "shape"], ["ones"]),
        helper.make_node("Add", ["x", "ones"], ["y"]),
    ]
    model = make_model(nodes, {"one": np.ones(1, np.float32)})
    fold_constants(model)
    assert [node.op_type for node in model.graph.node] == ["Shape", "Expand", "Add"]
    assert run(model) == [2, 3]


def test_traces_are_removed():
    model = make_model([helper.make_node("Neg", ["x"], ["y"], doc_string="from a/b.py")], {})
    for part in (model, model.graph, model.graph.node[0], model.graph.input[0], model.graph.output[0]):
        helper.set_model_props(part, {"stack_trace": "a/b.py"})
    remove_traces(model)
    assert b"a/b.py" not in model.SerializeToString()
    assert run(model) == [-1, -2]


@pytest.mark.parametrize("opset", [16, 18])
def test_softmax_over_an_inner_axis(opset):
    """Its values stay, also where e to the power of the values is no float; that over the last axis is left alone."""
    text = """<ir_version: 8, opset_import: ["" : OPSET]>
        network (float[2, 3, 4] values) => (float[2, 3, 4] inner, float[2, 3, 4] outer)
        { inner = Softmax <axis = 1> (values) outer = Softmax <axis = 2> (values) }"""
    model = parser.parse_model(text.replace("OPSET", str(opset)))
    values = np.linspace(-200, 200, 24, dtype=np.float32).reshape(4, 3, 2).T.copy()
    expected = ReferenceEvaluator(model).run(None, {"values": values})
    expand_softmax(model)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == ["ReduceMax", "Sub", "Exp", "ReduceSum", "Div", "Softmax"]
    for one, other in zip(ReferenceEvaluator(model).run(None, {"values": values}), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_equal_values_become_one_number():
    """A factor [4, 4] on either side becomes 4; [1, 2] stays, and so do factors that make the result larger."""
    text = """<ir_version: 8, opset_import: ["" : 18]>
        network (float[1, 2] x) => (float[1, 2] y, float[1, 1, 2] z, float[3, 2] w)
        <float[2] equal = {4, 4}, float[2] other = {1, 2}, float[1, 1, 2] axes = {5, 5}, float[3, 1] rows = {6, 6, 6}>
        { scaled = Mul (equal, x) half = Div (scaled, equal) y = Mul (half, other)
          z = Mul (x, axes) w = Mul (x, rows) }"""
    model = onnx.shape_inference.infer_shapes(parser.parse_model(text))
    model.graph.value_info.append(model.graph.input[0])  # as the exporter writes them
    values = np.array([[-3, 0.1]], np.float32)
    expected = ReferenceEvaluator(model).run(None, {"x": values})
    shrink_constants(model)
    onnx.checker.check_model(model, full_check=True)
    assert [list(node.input) for node in model.graph.node] == [
        ["equal_number", "x"],
        ["scaled", "equal_number"],
        ["half", "other"],
        ["x", "axes"],
        ["x", "rows"],
    ]
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    assert shapes == {"other": [2], "axes": [1, 1, 2], "rows": [3, 1], "equal_number": []}
    found = ReferenceEvaluator(model).run(None, {"x": values})
    for one, same in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, same)
