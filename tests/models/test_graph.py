from __future__ import annotations

import copy
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from detect.analysis.profile import profile_model
from detect.config.model import Scale
from detect.errors import InputError
from detect.exporting.onnx import export_onnx
from detect.models.blocks.space_to_depth import Pieces, space_to_depth
from detect.models.build import build_model
from detect.models.catalog import find_definition
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from detect.models.definition import ModelDefinition, with_options
from detect.models.graph import Graph
from detect.models.rows import scale_depth, scale_width
from detect.structures import FeatureShape
from tests.models.thin import thin
from tests.models.yamls import TINY, read_model, write_model, write_rows


def graph_of(folder: Path, *rows: str) -> Graph:
    """A graph of these rows, in float64."""
    return Graph(read_model(write_rows(folder, *rows)), num_classes=2).double()


def images(seed: int, *shape: int) -> Tensor:
    """Values in [0, 1), float64."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------ scale


@pytest.mark.parametrize(
    ("channels", "width", "multiple", "expected"),
    [
        (64, 0.25, 8, 16),
        (64, 1.0, 8, 64),
        (128, 0.348, 4, 48),  # 44.544, up to 48
        (64, 0.3, 8, 24),  # 19.2; the nearest multiple would be 16
        (24, 1 / 3, 8, 8),  # 8.0 for all that floating point can tell
        (1, 0.1, 8, 8),
        (10, 1.0, 1, 10),
    ],
)
def test_width_is_rounded_up(channels: int, width: float, multiple: int, expected: int) -> None:
    assert scale_width(channels, Scale(width=width, channel_multiple=multiple)) == expected


@pytest.mark.parametrize(
    ("repeats", "depth", "expected"),
    [(1, 0.33, 1), (3, 0.33, 1), (6, 0.33, 2), (9, 0.33, 3), (9, 0.67, 6), (2, 0.1, 1), (1, 3.0, 1)],
)
def test_depth(repeats: int, depth: float, expected: int) -> None:
    assert scale_depth(repeats, Scale(depth=depth)) == expected


def test_scale_reaches_the_modules(tmp_path: Path) -> None:
    """The image's channels and the head's outputs are no widths; 12 * 0.5 rounded up to a multiple of 4 is 8."""
    text = TINY.replace("out_channels: 16", "out_channels: 12") + "scale: {width: 0.5, channel_multiple: 4}\n"
    graph = Graph(read_model(write_model(tmp_path, text)), num_classes=3)
    assert graph.shapes["image"] == FeatureShape(3, 1)
    assert graph.shapes["stem"] == FeatureShape(4, 2)
    assert graph.shapes["down"] == FeatureShape(8, 4)
    assert graph.shapes["detect"].channels == 1 * (5 + 3)


# ------------------------------------------------------------------------------------- defaults and norms


def test_a_row_says_otherwise(tmp_path: Path) -> None:
    text = TINY.replace("stride: 2", "stride: 2, activation: none") + "defaults: {activation: relu}\n"
    path = write_model(tmp_path, text)
    layers = Graph(read_model(path), 2).layers
    assert isinstance(layers["down"].conv.activation, nn.ReLU)
    assert isinstance(layers["stem"].activation, nn.Identity)


def test_norms(tmp_path: Path) -> None:
    graph = Graph(read_model(write_model(tmp_path, TINY + "norm: {eps: 0.5, momentum: 0.25}\n")), 2)
    norms = [layer for layer in graph.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [(layer.eps, layer.momentum) for layer in norms] == [(0.5, 0.25)] * 2


# ------------------------------------------------------------------------------------------ convolutions


ROWS = """
name: rows
backbone:
  - {name: pool,  module: Pool}
  - {name: stem,  module: Conv, args: {out_channels: 8, kernel_size: 3}}
  - {name: down,  module: Conv, args: {out_channels: 16, kernel_size: 3, stride: 2}}
  - {name: thin,  module: Conv, args: {out_channels: 16, kernel_size: 3, groups: 2}}
neck:
  - {name: last,  module: Conv, args: {out_channels: 8, kernel_size: 3}}
head:
  - {name: near,  module: Conv, args: {out_channels: 8, kernel_size: 3}}
  - {name: class, module: Classify}
"""
"""A pool, the first convolution, a strided one, one of two groups, one of the neck, one of the head."""


def convs(graph: Graph) -> dict[str, str]:
    """The class of each row's convolution, where it is not an ordinary one."""
    kinds = {row.name: type(getattr(graph.layers[row.name], "conv", None)).__name__ for row in graph.definition.rows}
    return {name: kind for name, kind in kinds.items() if kind not in ("Conv2d", "NoneType")}


@pytest.mark.parametrize(
    ("conv", "kind"),
    [
        ("bdsc", "DecoupledConv"),
        ("{kind: bdsc-float, p: 2}", "DecoupledConv"),
        ("depthwise", "DepthwiseConv"),
        ("separable", "SeparableConv"),
    ],
)
def test_which_convolutions_are_replaced(tmp_path: Path, conv: str, kind: str) -> None:
    """Not the first one, though a row without any stands before it; not the grouped one."""
    graph = Graph(read_model(write_model(tmp_path, f"{ROWS}conv: {conv}\nnorm: {{eps: 0.5}}\n")), 2)
    assert convs(graph) == {"down": kind, "last": kind, "near": kind}
    assert {layer.eps for layer in graph.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.5}


def test_ordinary_convolutions(tmp_path: Path) -> None:
    assert convs(Graph(read_model(write_model(tmp_path, ROWS)), 2)) == {}
    assert convs(Graph(read_model(write_model(tmp_path, ROWS + "conv: standard\n")), 2)) == {}


def test_convolutions_of_a_row(tmp_path: Path) -> None:
    """One stage alone, or one other than the rest."""
    row = "{name: last,  module: Conv, conv: "
    one = ROWS.replace("{name: last,  module: Conv, ", row + "bdsc, ")
    assert convs(Graph(read_model(write_model(tmp_path, one)), 2)) == {"last": "DecoupledConv"}
    other = ROWS.replace("{name: last,  module: Conv, ", row + "standard, ")
    kinds = convs(Graph(read_model(write_model(tmp_path, other + "conv: bdsc\n")), 2))
    assert kinds == {"down": "DecoupledConv", "near": "DecoupledConv"}


STAY = "convolutions of 1x1, of several groups, and of the first row that has any stay ordinary$"


@pytest.mark.parametrize("name", ["stem", "thin", "pool", "class"])
def test_a_row_without_convolutions_to_replace(tmp_path: Path, name: str) -> None:
    text = ROWS.replace(f"{{name: {name},", f"{{name: {name}, conv: bdsc,")
    with pytest.raises(InputError, match=rf"model\.yaml: (backbone|head)\.{name}: conv: bdsc has no effect; {STAY}"):
        Graph(read_model(write_model(tmp_path, text)), 2)


def test_convolutions_that_no_row_has(tmp_path: Path) -> None:
    """Of a model with nothing to replace, or where every row says otherwise."""
    path = write_rows(tmp_path, f"name: a, {CONV}", f"name: b, {CONV}")
    with pytest.raises(InputError, match=rf"^model '.*': .*model\.yaml: conv: bdsc has no effect; {STAY}"):
        Graph(find_definition(f"{path}+bdsc"), 2)
    text = ROWS.replace("stride: 2}}", "stride: 2}, conv: depthwise}")
    for name in ("last,  module: Conv, ", "near,  module: Conv, "):
        text = text.replace(f"{{name: {name}", f"{{name: {name}conv: {{kind: bdsc, p: 2}}, ")
    with pytest.raises(InputError, match=rf"^[^:]*model\.yaml: conv: bdsc has no effect; {STAY}"):
        Graph(read_model(write_model(tmp_path, text + "conv: bdsc\n")), 2)


def test_count_of_binary_convolutions(tmp_path: Path) -> None:
    """BDSC with p = 0.5: 8 channels in between in ``down``, 4 in ``last``; 2 classes, an image of 16 px.

    Weights: stem 3*9*8 = 216; down 8*8 + 8*9*16 = 64 + 1152; thin 8*9*16 = 1152; last 16*4 + 4*9*8 = 64 + 288;
    near, an ordinary one, 8*9*8 = 576; class 8*2 = 16. Norms: 2 * (8 + 8 + 16 + 16 + 4 + 8 + 8) = 136. Biases: 2.
    Cells: the stem and the 1x1 of ``down`` run at 8*8, all else at 4*4; the classifier once.
    """
    text = ROWS.replace("{name: near, ", "{name: near, conv: standard, ")
    path = write_model(tmp_path, text + "conv: {kind: bdsc, p: 0.5}\n")
    profile = profile_model(str(path), 16, 2)
    weights = 216 + 64 + 1152 + 1152 + 64 + 288 + 576 + 16
    assert (profile.weights, profile.parameters) == (weights, weights + 136 + 2)
    assert profile.macs == 64 * (216 + 64) + 16 * (1152 + 1152 + 64 + 288 + 576) + 16
    assert [layer.path for layer in profile.layers if layer.path.startswith("down")] == [
        "down.conv.project",
        "down.conv.spatial",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "yolov5n-spd+bdsc+p=2+depth=0.1",
        "yolov5n-spd+order=spd_first+conv=depthwise+depth=0.1",
        "yolov5n-spd+order=spd_first+conv=separable+depth=0.1",
    ],
)
def test_decoupled_convolutions_take_pieces(name: str) -> None:
    """The same result as with every space-to-depth and concatenation between rows built."""
    torch.manual_seed(0)
    model = build_model(name, 2).double().eval()
    assert model.graph._as_pieces == spd_model("conv_first" if "bdsc" in name else "spd_first").graph._as_pieces
    x = images(1, 1, 3, 64, 64)
    with torch.no_grad():
        found = model(x)
        model.graph._as_pieces = frozenset()
        for level, expected in zip(found, model(x), strict=True):
            torch.testing.assert_close(level, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", thin(["yolov5n-spd+bdsc+p=2+width=0.5", "csppeleenet-efm+bdsc+width=0.25"], 0))
def test_binary_models_learn_and_come_back(tmp_path: Path, name: str) -> None:
    """A gradient in every parameter; saved and loaded, the same predictions bit for bit."""
    torch.manual_seed(0)
    model = build_model(name, 2)
    x = images(1, 2, 3, 64, 64).float()
    sum(y.square().mean() for y in model(x)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    path = tmp_path / "model.pt"
    save_checkpoint(path, model, names=("a", "b"), category_ids=(1, 2), image_size=64, metrics={}, provenance={})
    loaded = load_checkpoint(path).model
    assert loaded.definition.sections == model.definition.sections
    with torch.no_grad():
        for found, expected in zip(loaded(x), model.eval()(x), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("word", ["bdsc", "conv=bdsc-float", "conv=depthwise"])
def test_decoupled_convolutions_as_onnx(tmp_path: Path, word: str) -> None:
    """The weights are stored as they are used, and the predictions are those of PyTorch."""
    torch.manual_seed(0)
    model = build_model(f"yolov5n-spd+{word}+depth=0.1", 2)
    saved = {"names": ("a", "b"), "category_ids": (1, 2), "image_size": 64, "metrics": {}, "provenance": {}}
    save_checkpoint(tmp_path / "model.pt", model, **saved)
    assert export_onnx(load_checkpoint(tmp_path / "model.pt"), tmp_path / "model.onnx").good
    stored = {tensor.name for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    assert {node.input[1] for node in nodes if node.op_type == "Conv"} <= stored


# ------------------------------------------------------------------------------- shapes that are kept


@pytest.mark.parametrize("order", ["conv_first", "spd_first"])
@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-spd"])
def test_every_row_has_the_shape_it_promises(name: str, order: str) -> None:
    definition = find_definition(name)
    definition = with_options(definition, {"order": order}, {"depth": 0.1, "width": 0.5}, "test")
    graph = Graph(definition, 2).eval()
    values: dict[str, Tensor] = {"image": torch.zeros(1, 3, 64, 96)}
    for row in definition.rows[:-1]:
        with torch.no_grad():
            values[row.name] = graph.layers[row.name](*(values[source] for source in row.inputs))
        shape = graph.shapes[row.name]
        assert values[row.name].shape == (1, shape.channels, 64 // shape.reduction, 96 // shape.reduction), row.name


# ------------------------------------------------------------- space-to-depth that is not carried out


def convolve_plainly(conv: nn.Conv2d, x: Tensor | Pieces) -> Tensor:
    """The reference: every space-to-depth and concatenation is built."""
    return conv(x if isinstance(x, Tensor) else torch.cat([space_to_depth(p.map, p.block_size) for p in x], dim=1))


def spd_model(order: str) -> nn.Module:
    definition = find_definition("yolov5n-spd")
    torch.manual_seed(0)
    return build_model(with_options(definition, {"order": order}, {"depth": 0.1, "width": 0.5}, "test"), 2).double()


def run(model: nn.Module, training: bool) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Raw predictions, and in training the parameters' gradients and the norms' statistics."""
    model = copy.deepcopy(model).train(training)
    raw = model(images(1, 2, 3, 64, 64))
    if not training:
        return raw, {}
    sum((y.square() * (level + 1)).sum() for level, y in enumerate(raw)).backward()
    return raw, {**{name: p.grad for name, p in model.named_parameters()}, **dict(model.named_buffers())}


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("order", ["conv_first", "spd_first"])
def test_pieces_change_nothing(order: str, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = spd_model(order)
    raw, others = run(model, training)
    monkeypatch.setattr("detect.models.blocks.conv.convolve", convolve_plainly)
    model.graph._as_pieces = frozenset()
    expected, expected_others = run(model, training)
    assert others.keys() == expected_others.keys()
    for found, plain in zip([*raw, *others.values()], [*expected, *expected_others.values()], strict=True):
        torch.testing.assert_close(found, plain, atol=1e-9, rtol=1e-9)


def test_which_rows_go_out_in_pieces() -> None:
    downs = {"down2", "down3", "down4", "down5", "down_p3", "down_p4"}
    assert spd_model("conv_first").graph._as_pieces == downs | {"cat_p4", "cat_p5"}
    assert spd_model("spd_first").graph._as_pieces == set()
    assert build_model("yolov5n", 2).graph._as_pieces == set()


CONV = "module: Conv, args: {out_channels: 8}"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["name: a, module: SpaceToDepth", f"name: b, {CONV}"], {"a"}),
        # A strided or grouped convolution, a pool and another space-to-depth need the map itself.
        (
            [
                "name: a, module: SpaceToDepth",
                "name: b, module: Conv, args: {out_channels: 8, kernel_size: 3, stride: 2}",
            ],
            set(),
        ),
        (["name: a, module: SpaceToDepth", "name: b, module: Conv, args: {out_channels: 8, groups: 4}"], set()),
        (["name: a, module: SpaceToDepth", "name: b, module: SPPF, args: {out_channels: 8}"], set()),
        (["name: a, module: SpaceToDepth", "name: b, module: SpaceToDepth", f"name: c, {CONV}"], {"b"}),
        # So do all consumers, when one of them does.
        (
            [
                "name: a, module: SpaceToDepth",
                f"name: b, {CONV}",
                "name: c, module: SPPF, from: a, args: {out_channels: 8}",
                "name: d, module: Concat, from: [b, c]",
            ],
            set(),
        ),
        # A concatenation hands pieces on, of its own input twice too.
        (["name: a, module: SpaceToDepth", "name: b, module: Concat, from: [a, a]", f"name: c, {CONV}"], {"a", "b"}),
        (
            [
                "name: a, module: SpaceToDepth",
                "name: b, module: SpaceToDepth, from: image",
                "name: c, module: Concat, from: [a, b]",
                "name: d, module: Concat, from: [c, a]",
                f"name: e, {CONV}",
            ],
            {"a", "b", "c", "d"},
        ),
        # Not into a concatenation that somebody needs as a map, nor one of maps alone.
        (
            ["name: a, module: SpaceToDepth", "name: b, module: Concat, from: [a, a]", "name: c, module: Upsample"],
            set(),
        ),
        (["name: a, module: Concat, from: [image, image]", f"name: b, {CONV}"], set()),
        # The last row is the output.
        (["name: a, module: SpaceToDepth"], set()),
        (["name: a, module: SpaceToDepth", "name: b, module: Concat, from: [a, a]"], set()),
        # A row that nobody reads.
        (["name: a, module: SpaceToDepth", f"name: b, {CONV}", f"name: c, from: b, {CONV}"], {"a"}),
    ],
)
def test_plan_of_small_graphs(tmp_path: Path, rows: list[str], expected: set[str]) -> None:
    graph = graph_of(tmp_path, *rows).eval()
    assert graph._as_pieces == expected
    x = images(2, 1, 3, 8, 8)
    found = graph(x)
    graph._as_pieces = frozenset()
    torch.testing.assert_close(found, graph(x), atol=1e-12, rtol=0)


def test_a_row_may_be_read_long_after(tmp_path: Path) -> None:
    """Maps are dropped after their last use, not before."""
    graph = graph_of(
        tmp_path,
        f"name: a, {CONV}",
        f"name: b, {CONV}",
        f"name: c, {CONV}",
        "name: d, module: Concat, from: [c, a, image, a]",
    ).eval()
    x = images(3, 1, 3, 4, 4)
    a = graph.layers["a"](x)
    torch.testing.assert_close(graph(x), torch.cat([graph.layers["c"](graph.layers["b"](a)), a, x, a], dim=1))


# ----------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["name: a, module: Cnov"], r"module: unknown 'Cnov'; did you mean 'Conv'\?$"),
        (
            ["name: a, module: nn.Conv2d"],
            r"module: unknown 'nn\.Conv2d'; did you mean 'Conv'\?$|module: unknown 'nn\.Conv2d'; allowed",
        ),
        (
            ["name: a, module: Conv, args: {out_channels: 8, kernel: 3}"],
            r"args: Conv has no keyword 'kernel'; did you mean 'kernel_size'\?$",
        ),
        (
            ["name: a, module: Conv, args: {out_channels: 8, in_channels: 3}"],
            r"args: Conv has no keyword 'in_channels'",
        ),
        (["name: a, module: C3, args: {out_channels: 8, repeats: 3}"], r"args: C3 has no keyword 'repeats'"),
        (["name: a, module: Conv, args: {out_channels: 8, 3: 3}"], r"args: Conv has no keyword '3'; allowed: "),
        (["name: a, module: Concat, args: {dim: 1}"], r"args: Concat has no keyword 'dim'; nothing is allowed here$"),
        (["name: a, module: Conv"], r"args: Conv needs out_channels$"),
        (["name: a, module: AnchorDetect"], r"args: AnchorDetect needs anchors_px$"),
        (
            ["name: a, module: Conv, from: [image, image], args: {out_channels: 8}"],
            r"from: Conv takes one input, found 2$",
        ),
        (
            [
                "name: b, module: Conv, args: {out_channels: 8, stride: 2}",
                "name: a, module: Concat, from: [image, b]",
            ],
            r"from: maps of reductions 1, 2 cannot be concatenated; they must be equal$",
        ),
        (["name: a, module: Conv, args: {out_channels: 8, stride: 2}, reduction: 4"], r"reduction: stated 4, built 2$"),
        (["name: a, module: Conv, args: {out_channels: 8}, repeats: 2"], r"repeats: Conv cannot be repeated$"),
        (["name: a, module: Upsample"], r"scale_factor: a map of reduction 1 cannot be enlarged 2 times$"),
        (["name: a, module: Stem, args: {out_channels: 8, downsample: sdp}"], r"args: downsample: unknown 'sdp'"),
        (["name: a, module: Conv, args: {out_channels: 8, activation: gelu}"], r"args: activation: unknown 'gelu'"),
        (
            ["name: a, module: Conv, args: {out_channels: 8, groups: 5}"],
            r"args: Conv\(out_channels=8, groups=5, in_channels=3\): in_channels must be divisible by groups$",
        ),
        (
            ["name: a, module: Conv, args: {out_channels: 8, kernel_size: 2}"],
            r"kernel_size: must be odd where the stride",
        ),
    ],
)
def test_wrong_rows(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        graph_of(tmp_path, *rows)
    assert str(caught.value).startswith(f"{tmp_path / 'model.yaml'}: backbone.a: ")


@pytest.mark.parametrize("found", ["0", "-1", "2.0", "'2'", "true", "[2]", "null"])
@pytest.mark.parametrize(
    ("module", "word"),
    [
        ("Conv", "out_channels"),
        ("Conv", "kernel_size"),
        ("Conv", "stride"),
        ("Upsample", "scale_factor"),
        ("SpaceToDepth", "block_size"),
    ],
)
def test_whole_numbers(tmp_path: Path, module: str, word: str, found: str) -> None:
    args = f"{word}: {found}" if module != "Conv" or word == "out_channels" else f"out_channels: 8, {word}: {found}"
    with pytest.raises(InputError, match=rf"backbone\.a: args: {word}: must be a whole number above 0, found "):
        graph_of(tmp_path, f"name: a, module: {module}, args: {{{args}}}")


def test_truth_values(tmp_path: Path) -> None:
    """``"false"`` would be true."""
    with pytest.raises(InputError, match=r"args: shortcut: must be true or false, found 'false'$"):
        graph_of(tmp_path, "name: a, module: C3, args: {out_channels: 8, shortcut: 'false'}")


@pytest.mark.parametrize("name", ["train", "forward", "keys", "type"])
def test_names_that_pytorch_has_taken(tmp_path: Path, name: str) -> None:
    message = rf"backbone\.{name}: name: '{name}' is an attribute of PyTorch's modules; choose another name$"
    with pytest.raises(InputError, match=message):
        graph_of(tmp_path, f"name: {name}, {CONV}")


def test_repeats_are_refused_whatever_the_depth(tmp_path: Path) -> None:
    """Two times the depth 0.33 is one; the same rows must not fail in a deeper variant only."""
    path = write_model(
        tmp_path,
        "name: x\nscale: {depth: 0.33}\nbackbone:\n  - {name: a, module: Conv, args: {out_channels: 8}, repeats: 2}\n",
    )
    with pytest.raises(InputError, match=r"backbone\.a: repeats: Conv cannot be repeated$"):
        Graph(read_model(path), 2)


def test_a_default_that_no_module_has(tmp_path: Path) -> None:
    path = write_model(tmp_path, TINY + "defaults: {activation: silu, downsamples: spd}\n")
    with pytest.raises(InputError, match=r"model\.yaml: defaults\.downsamples: has no effect; "):
        Graph(read_model(path), 2)


def test_a_default_with_a_wrong_value(tmp_path: Path) -> None:
    path = write_model(tmp_path, TINY + "defaults: {downsample: stirde}\n")
    with pytest.raises(
        InputError, match=r"backbone\.down: args: downsample: unknown 'stirde'; did you mean 'stride'\?$"
    ):
        Graph(read_model(path), 2)


def test_definitions_are_not_changed_by_building() -> None:
    definition: ModelDefinition = find_definition("yolov5n-spd")
    Graph(definition, 2)
    assert definition == find_definition("yolov5n-spd")


def test_a_default_that_every_row_overrules(tmp_path: Path) -> None:
    text = TINY.replace("stride: 2}", "stride: 2, groups: 1}") + "defaults: {groups: 2}\n"
    text = text.replace("args: {out_channels: 16}", "args: {out_channels: 16, groups: 1}")
    with pytest.raises(
        InputError, match=r"defaults\.groups: has no effect; .* every row that could take it says otherwise$"
    ):
        Graph(read_model(write_model(tmp_path, text)), num_classes=2)


def test_a_row_that_nothing_reads(tmp_path: Path) -> None:
    rows = [
        "name: a, module: Conv, args: {out_channels: 8}",
        "name: b, module: Conv, from: image, args: {out_channels: 8}",
    ]
    with pytest.raises(InputError, match=r"model\.yaml: backbone\.a: no row reads it, and it is not the last one$"):
        graph_of(tmp_path, *rows)
