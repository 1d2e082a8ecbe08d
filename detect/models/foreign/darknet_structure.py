"""A Darknet configuration beside a model: whether they are the same network, and the model with the file's anchors."""

from __future__ import annotations

from torch import nn

from detect.errors import InputError
from detect.models.blocks.conv import Conv
from detect.models.definition import ModelDefinition, with_args
from detect.models.foreign.darknet import Layer, darknet_layers
from detect.models.foreign.darknet_cfg import DarknetCfg, Weighted
from detect.models.graph import Graph
from detect.models.heads import AnchorDetect

_ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.LeakyReLU: "leaky",
    nn.Mish: "mish",
    nn.Identity: "linear",
    nn.ReLU: "relu",
    nn.SiLU: "swish",
}
"""Ours to Darknet's names."""
_FIELDS = {
    "kind": "kind",
    "size": "size",
    "stride": "stride",
    "groups": "groups",
    "filters": "filters",
    "normed": "batch_normalize",
    "activation": "activation",
    "in_channels": "input channels",
    "reduction": "input pixels per cell",
}
"""What is compared, and its name in messages; what the section itself says comes first."""


def with_anchors_of(definition: ModelDefinition, graph: Graph, cfg: DarknetCfg) -> ModelDefinition:
    """The definition with the anchors and the reach of centres that a configuration gives.

    Args:
        definition: a detector.
        graph: of it, with any number of classes.
        cfg: of the file.

    Raises:
        InputError: the configuration has other levels, or codes boxes as the model cannot.
    """
    head = graph.last
    assert isinstance(head, AnchorDetect), "a detector's last row"
    order = [int(layer.name.split(".")[-1]) for layer in darknet_layers(graph) if _is_of_head(layer, graph)]
    if len(order) != len(cfg.levels):
        found = f"{cfg.path}: has {len(cfg.levels)} [yolo] sections"
        raise InputError(f"{found}, but {definition.name} has {len(order)} detection layers")
    levels = [level for _, level in sorted(zip(order, cfg.levels, strict=True), key=lambda pair: pair[0])]
    counts = [len(level.anchors_px) for level in levels]
    if len(set(counts)) > 1:
        raise InputError(f"{cfg.path}: its [yolo] sections have {counts} anchors; as many in each are read")
    if head.codings[0].sizes != "exp":
        raise InputError(f"{definition.name}: codes boxes as YOLOv5 does; Darknet's files need coding: yolov3")
    anchors, scales = [level.anchors_px for level in levels], [level.xy_scale for level in levels]
    return with_args(definition, "AnchorDetect", anchors_px=anchors, xy_scale=scales)


def anchors_text(graph: Graph) -> str:
    """Anchors and reach of centres of a detector, finest level first."""
    head = graph.last
    assert isinstance(head, AnchorDetect), "a detector's last row"
    levels = [", ".join(f"{w:g}x{h:g}" for w, h in level) for level in head.anchors_px.tolist()]
    scales = ", ".join(f"{coding.xy_scale:g}" for coding in head.codings)
    return f"anchors {' | '.join(levels)} px, scale_x_y {scales}"


def check_structure(graph: Graph, cfg: DarknetCfg) -> None:
    """Compare the layers with weights, one by one in the order of the weights file.

    Their kinds, filters, kernels, strides, groups, norms and activations; and their input channels and output sizes, in
    which pools, upsamplings and routes show.

    Raises:
        InputError: names the first section that is another layer than the model's.
    """
    name, layers = graph.definition.name, darknet_layers(graph)
    for layer, (theirs, place) in zip(layers, cfg.layers, strict=False):
        ours = _as_weighted(layer)
        for field, word in _FIELDS.items():
            found, wanted = getattr(theirs, field), getattr(ours, field)
            if found != wanted and not (field == "reduction" and ours.kind == "connected"):
                raise InputError(f"{place}: {word} is {_text(found)}, but {_text(wanted)} in {name} ({layer.name})")
    if len(layers) != len(cfg.layers):
        raise InputError(f"{cfg.path}: has {len(cfg.layers)} layers with weights, {name} has {len(layers)}")


def _is_of_head(layer: Layer, graph: Graph) -> bool:
    return layer.name.split(".")[1] == graph.definition.rows[-1].name


def _as_weighted(layer: Layer) -> Weighted:
    """A layer of ours in Darknet's words."""
    module = layer.module
    if isinstance(module, nn.Linear):
        outputs, inputs = module.weight.shape
        return Weighted("connected", outputs, inputs, 1, 1, 1, False, "linear", layer.reduction)
    conv = module.conv if isinstance(module, Conv) else module
    assert isinstance(conv, nn.Conv2d), "other layers are not Darknet's"
    activation = module.activation if isinstance(module, Conv) else nn.Identity()
    name = _ACTIVATIONS.get(type(activation), type(activation).__name__)
    channels = (conv.out_channels, conv.in_channels)
    kernel = (conv.kernel_size[0], conv.stride[0], conv.groups)
    return Weighted("convolutional", *channels, *kernel, layer.norm is not None, name, layer.reduction)


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
