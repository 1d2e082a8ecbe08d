"""What an exporter leaves in an ONNX graph and nobody needs: arithmetic on weights, and traces of the machine."""

from __future__ import annotations

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator


def fold_constants(model: onnx.ModelProto) -> None:
    """Carry out, in place, every node that depends on weights only, such as the rearrangement of a kernel.

    Some runtimes demand that a convolution's weights are stored, not computed.
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    remaining = []
    for node in graph.node:
        if node.input and all(name in stored for name in node.input):
            inputs = {name: onnx.numpy_helper.to_array(stored[name]) for name in node.input}
            values = ReferenceEvaluator(node).run(None, inputs)
            for name, value in zip(node.output, values, strict=True):
                stored[name] = onnx.numpy_helper.from_array(np.asarray(value), name)
        else:
            remaining.append(node)
    used = {name for node in remaining for name in node.input} | {value.name for value in graph.output}
    computed = {name for node in remaining for name in node.output}
    replace_items(graph.node, remaining)
    replace_items(graph.initializer, [tensor for name, tensor in stored.items() if name in used])
    replace_items(graph.value_info, [value for value in graph.value_info if value.name in computed])


def remove_traces(model: onnx.ModelProto) -> None:
    """Remove, in place, the notes of the exporter: stack traces with the paths of the machine, names of its passes."""
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info, graph, model):
        del part.metadata_props[:]
        part.doc_string = ""


def replace_items(field: list, items: list) -> None:
    """The items of a repeated protobuf field, which cannot be assigned to; ``items`` may be of it."""
    kept = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(kept)
