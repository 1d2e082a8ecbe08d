"""Edits of an exported ONNX graph: constants, softmax, the exporter's notes, non-maximum suppression.

Letters: B images, P predictions of an image, K classes, C = 5 + K columns, M selected boxes of all images, D rows of an
image's result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import compose, parser
from onnx.reference import ReferenceEvaluator

from detect.evaluation.postprocess import PredictSettings

_SUPPRESSION = """
suppression (float[%(batch)s, P, C] predictions)
    => (float[%(batch)s, %(count)d, 6] detections, int64[%(batch)s] counts)
<
    float score_threshold = {%(score).9f}, float iou_threshold = {%(iou).9f}, int64 max_detections = {%(count)d},
    int64[1] nms_0 = {0}, int64[1] nms_1 = {1}, int64[1] nms_2 = {2}, int64[1] nms_4 = {4}, int64[1] nms_5 = {5},
    int64[1] nms_6 = {6}, int64[1] nms_end = {9223372036854775807}, float nms_half = {0.5}, float nms_none = {0.0},
    int64 nms_zero = {0}, int64 nms_one = {1}
>
{
    # (B, P, 4), (B, P, 1), (B, P, K)
    nms_cxcywh = Slice (predictions, nms_0, nms_4, nms_2)
    nms_objectness = Slice (predictions, nms_4, nms_5, nms_2)
    nms_classes = Slice (predictions, nms_5, nms_end, nms_2)
    nms_scores = Mul (nms_objectness, nms_classes)
    # Only the best class of a prediction keeps its score: (B, P, K), turned to (B, K, P).
    nms_best = ArgMax <axis = 2, keepdims = 1> (nms_scores)
    nms_class_count = Shape <start = 2, end = 3> (nms_scores)
    nms_class_scalar = Squeeze (nms_class_count)
    nms_class_range = Range (nms_zero, nms_class_scalar, nms_one)
    nms_is_best = Equal (nms_best, nms_class_range)
    nms_best_scores = Where (nms_is_best, nms_scores, nms_none)
    nms_by_class = Transpose <perm = [0, 2, 1]> (nms_best_scores)
    # (M, 3): image, class, prediction
    nms_selected = NonMaxSuppression <center_point_box = 1>
        (nms_cxcywh, nms_by_class, max_detections, iou_threshold, score_threshold)
    # Best score first, then image by image; TopK leaves equal ones in their order.
    nms_selected_scores = GatherND (nms_by_class, nms_selected)
    nms_selected_count = Shape (nms_selected_scores)
    nms_sorted_scores, nms_by_score = TopK <axis = 0, largest = 1> (nms_selected_scores, nms_selected_count)
    nms_score_rows = Gather <axis = 0> (nms_selected, nms_by_score)
    nms_score_images = Gather <axis = 1> (nms_score_rows, nms_zero)
    nms_images, nms_by_image = TopK <axis = 0, largest = 0> (nms_score_images, nms_selected_count)
    nms_rows = Gather <axis = 0> (nms_score_rows, nms_by_image)
    nms_row_scores = Gather <axis = 0> (nms_sorted_scores, nms_by_image)
    # The number of rows of each image, and each row's rank within its image.
    nms_batch = Shape <start = 0, end = 1> (predictions)
    nms_batch_scalar = Squeeze (nms_batch)
    nms_image_range = Range (nms_zero, nms_batch_scalar, nms_one)
    nms_image_column = Unsqueeze (nms_image_range, nms_1)
    nms_image_row = Unsqueeze (nms_images, nms_0)
    nms_belongs = Equal (nms_image_column, nms_image_row)
    nms_belongs_int = Cast <to = 7> (nms_belongs)
    nms_found = ReduceSum <keepdims = 0> (nms_belongs_int, nms_1)
    nms_starts = CumSum <exclusive = 1> (nms_found, nms_zero)
    nms_row_starts = Gather <axis = 0> (nms_starts, nms_images)
    nms_selected_scalar = Squeeze (nms_selected_count)
    nms_row_range = Range (nms_zero, nms_selected_scalar, nms_one)
    nms_ranks = Sub (nms_row_range, nms_row_starts)
    counts = Min (nms_found, max_detections)
    # The rows that have a place in the result, and their values: left, top, right, bottom, score, class.
    nms_has_place = Less (nms_ranks, max_detections)
    nms_kept = Compress <axis = 0> (nms_rows, nms_has_place)
    nms_kept_ranks = Compress <axis = 0> (nms_ranks, nms_has_place)
    nms_kept_scores = Compress <axis = 0> (nms_row_scores, nms_has_place)
    nms_kept_images = Slice (nms_kept, nms_0, nms_1, nms_1)
    nms_kept_classes = Slice (nms_kept, nms_1, nms_2, nms_1)
    nms_kept_predictions = Slice (nms_kept, nms_2, nms_end, nms_1)
    nms_box_index = Concat <axis = 1> (nms_kept_images, nms_kept_predictions)
    nms_kept_cxcywh = GatherND (nms_cxcywh, nms_box_index)
    nms_centres = Slice (nms_kept_cxcywh, nms_0, nms_2, nms_1)
    nms_sizes = Slice (nms_kept_cxcywh, nms_2, nms_4, nms_1)
    nms_half_sizes = Mul (nms_sizes, nms_half)
    nms_left_top = Sub (nms_centres, nms_half_sizes)
    nms_right_bottom = Add (nms_centres, nms_half_sizes)
    nms_score_column = Unsqueeze (nms_kept_scores, nms_1)
    nms_class_column = Cast <to = 1> (nms_kept_classes)
    nms_values = Concat <axis = 1> (nms_left_top, nms_right_bottom, nms_score_column, nms_class_column)
    nms_rank_column = Unsqueeze (nms_kept_ranks, nms_1)
    nms_places = Concat <axis = 1> (nms_kept_images, nms_rank_column)
    nms_length = Unsqueeze (max_detections, nms_0)
    nms_shape = Concat <axis = 0> (nms_batch, nms_length, nms_6)
    nms_empty = Expand (nms_none, nms_shape)
    detections = ScatterND (nms_empty, nms_places, nms_values)
}
"""
"""Suppression in ONNX's own text format, by operators of every supported set; its settings are named constants."""


def fold_constants(model: onnx.ModelProto) -> None:
    """Replace, in place, every node that depends on weights only by its value, such as a rearranged kernel.

    Some runtimes need a convolution's weights stored, not computed.
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


def expand_softmax(model: onnx.ModelProto) -> None:
    """Replace, in place, every softmax over another axis than the last by its definition.

    ONNX Runtime transposes such an axis to the end and back. The distributions of a head with ``bins``, 16 values each,
    took it a fifth of the time of an image (``docs/results/int8.md``).
    """
    graph, opset = model.graph, model.opset_import[0].version
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*graph.value_info, *graph.output)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
        rank = ranks.get(node.output[0], 0)
        if node.op_type != "Softmax" or axis < 0 or axis >= rank - 1:
            nodes.append(node)
            continue
        (values,), (shares,) = node.input, node.output
        axes, largest, lower, powers, total = (f"{shares}_{part}" for part in ("axes", "max", "lower", "exp", "sum"))
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([axis]), axes))
        # The axes of ReduceMax are an input since operator set 18, those of ReduceSum since 13.
        maximum = (
            onnx.helper.make_node("ReduceMax", [values, axes], [largest], keepdims=1)
            if opset >= 18
            else onnx.helper.make_node("ReduceMax", [values], [largest], axes=[axis], keepdims=1)
        )
        nodes += [
            maximum,
            onnx.helper.make_node("Sub", [values, largest], [lower]),
            onnx.helper.make_node("Exp", [lower], [powers]),
            onnx.helper.make_node("ReduceSum", [powers, axes], [total], keepdims=1),
            onnx.helper.make_node("Div", [powers, total], [shares]),
        ]
    replace_items(graph.node, nodes)


def shrink_constants(model: onnx.ModelProto) -> None:
    """Replace, in place, a factor or divisor whose values are all equal by one number, such as a square anchor's sides.

    The results stay the same to the bit. ONNX Runtime repeats two values box by box, which takes it longer than the
    product (``docs/results/int8.md``). A constant that makes the result larger than the other side stays.
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.value_info}
    for node in graph.node:
        if node.op_type not in ("Mul", "Div"):
            continue
        for place, (name, other) in enumerate(zip(node.input, reversed(node.input), strict=True)):
            if name not in stored or not _is_covered(stored[name].dims, shapes.get(other, [])):
                continue
            values = onnx.numpy_helper.to_array(stored[name])
            if values.size > 1 and (values == values.flat[0]).all():
                number = f"{name}_number"
                stored[number] = onnx.numpy_helper.from_array(np.array(values.flat[0]), number)
                node.input[place] = number
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    replace_items(graph.initializer, [tensor for name, tensor in stored.items() if name in used])


def _is_covered(shape: Sequence[int], other: Sequence[int]) -> bool:
    """True where a tensor of this shape makes no result larger than one of the other shape, 0 for an unknown side."""
    same = zip(reversed(shape), reversed(other), strict=False)
    return len(shape) <= len(other) and all(side in (1, known) for side, known in same)


def remove_traces(model: onnx.ModelProto) -> None:
    """Remove, in place, the exporter's notes: stack traces with paths of the machine, names of its passes."""
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info, graph, model):
        del part.metadata_props[:]
        part.doc_string = ""


def read_values(path: Path) -> tuple[list[tuple[str, list[int]]], list[tuple[str, list[int]]]]:
    """Names and shapes of a file's inputs and outputs; 0 for a side of any size."""
    graph = onnx.load(path, load_external_data=False).graph
    inputs, outputs = (
        [(value.name, [dim.dim_value for dim in value.type.tensor_type.shape.dim]) for value in values]
        for values in (graph.input, graph.output)
    )
    return inputs, outputs


def replace_items(field: list, items: list) -> None:
    """Set the items of a repeated protobuf field, which cannot be assigned to; ``items`` may be taken from it."""
    kept = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(kept)


def append_suppression(exported: onnx.ModelProto, settings: PredictSettings) -> onnx.ModelProto:
    """Append non-maximum suppression to a detector, as ``detect.boxes.nms`` computes it.

    Each of the ``predictions`` (B, P, 5 + K) counts for its best class; of two boxes of a class that overlap by more
    than the IoU threshold the better one stays.

    Returns:
        The model with the outputs ``detections`` float32 (B, D, 6), D = ``max_detections``: left, top, right, bottom in
        input pixels, score, class index, best first, zeros behind the last; and ``counts`` int64 (B,) of detections.
    """
    batch = exported.graph.output[0].type.tensor_type.shape.dim[0]
    words = {
        "batch": batch.dim_param or batch.dim_value,
        "score": settings.score_threshold,
        "iou": settings.iou_threshold,
        "count": settings.max_detections,
    }
    graph = parser.parse_graph(_SUPPRESSION % words)
    suppression = onnx.helper.make_model(graph, opset_imports=exported.opset_import, ir_version=exported.ir_version)
    merged = compose.merge_models(exported, suppression, io_map=[("predictions", "predictions")])
    replace_items(merged.opset_import, list(exported.opset_import))  # it has one for each of the two
    return merged


def with_predictions(exported: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model with suppression; the copy has ``predictions`` as a last output and a score threshold of 0."""
    opened = onnx.ModelProto()
    opened.CopyFrom(exported)
    opened.graph.output.append(onnx.helper.make_tensor_value_info("predictions", onnx.TensorProto.FLOAT, [None] * 3))
    stored = next(tensor for tensor in opened.graph.initializer if tensor.name == "score_threshold")
    stored.CopyFrom(onnx.numpy_helper.from_array(np.zeros((), np.float32), stored.name))
    return opened
