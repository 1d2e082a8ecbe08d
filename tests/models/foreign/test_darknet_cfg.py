"""Darknet's configurations, written by hand, and as the reference network's layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detect.errors import InputError
from detect.models.build import build_graph
from detect.models.foreign.darknet_cfg import MAX_BYTES, anchors_text, check_structure, read_cfg, with_anchors_of
from tests.models.foreign import darknet_reference as reference
from tests.models.yamls import read_model, write_model

SMALL = """
name: small
defaults: {activation: leaky}
backbone:
  - {name: stem, module: Conv, args: {out_channels: 4, kernel_size: 3, stride: 2}}
neck:
  - {name: top, module: Conv, args: {out_channels: 6, kernel_size: 3, stride: 2}}
head:
  - {name: detect, module: AnchorDetect, from: [stem, top], args: {coding: yolov3, anchors_px: [[[4, 4]], [[9, 8]]]}}
"""

CFG = """\
# made by hand
[net]
width=96
height = 64
channels=3
learning_rate=0.001

[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=7
size=1
activation=linear

[yolo]
mask = 1
anchors = 5,6,  10,13
classes=2
num=2
scale_x_y = 1.1

[route]
layers=-3

[convolutional]
batch_normalize=1
filters=6
size=3
stride=2
activation=leaky

[convolutional]
filters=7
activation=linear

[yolo]
; the other anchor
mask=0
anchors=20.5,30, 1,1
classes=2
"""


def written(folder: Path, text: str = CFG) -> Path:
    path = folder / "x.cfg"
    path.write_text(text)
    return path


def small(folder: Path):
    return read_model(write_model(folder, SMALL))


def test_values_by_hand(tmp_path: Path) -> None:
    cfg = read_cfg(written(tmp_path))
    assert cfg.input_wh == (96, 64)
    assert [layer.filters for layer, _ in cfg.layers] == [4, 7, 6, 7]
    assert [layer.in_channels for layer, _ in cfg.layers] == [3, 4, 4, 6]
    assert [layer.reduction for layer, _ in cfg.layers] == [2, 2, 4, 4]
    assert [level.anchors_px for level in cfg.levels] == [[[10, 13]], [[20.5, 30]]]
    assert [level.xy_scale for level in cfg.levels] == [1.1, 1.0]
    assert cfg.levels[0].place == f"{tmp_path / 'x.cfg'}: line 21, section 2 [yolo]"


def test_the_model_takes_what_the_file_says(tmp_path: Path) -> None:
    definition, cfg = small(tmp_path), read_cfg(written(tmp_path))
    graph = build_graph(with_anchors_of(definition, build_graph(definition, 2), cfg), 2)
    check_structure(graph, cfg)
    assert graph.last.anchors_px.tolist() == [[[10, 13]], [[20.5, 30]]]
    assert [coding.xy_scale for coding in graph.last.codings] == [1.1, 1.0]
    assert anchors_text(graph) == "anchors 10x13 | 20.5x30 px, scale_x_y 1.1, 1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("filters=4", "filters=5"),
            r"line 8, section 0 \[convolutional\]: filters is 5, but 4 in small \(layers.stem\)",
        ),
        (("size=3\nstride=2\npad", "size=5\nstride=2\npad"), r"section 0 \[convolutional\]: size is 5, but 3 in small"),
        (
            ("stride=2\nact", "stride=1\nact"),
            r"section 4 \[convolutional\]: stride is 1, but 2 in small \(layers.top\)",
        ),
        (("=linear", "=leaky"), r"section 1 \[convolutional\]: activation is leaky, but linear in small"),
        (("batch_normalize=1\nfilters=6", "filters=6"), r"section 4 .*: batch_normalize is 0, but 1 in small"),
        (("layers=-3", "layers=-3,-3"), r"section 4 \[convolutional\]: input channels is 8, but 4 in small"),
        (
            ("[route]", "[maxpool]\nstride=2\n[upsample]\nstride=1\n[route]"),
            r"section 6 .*: input channels is 7, but 4",
        ),
        (
            ("[route]\nlayers=-3", "[route]\nlayers=-3\n[maxpool]\nstride=2"),
            r"section 5 .*: input pixels per cell is 8, but",
        ),
        (
            ("[route]", "[connected]\noutput=6\n[route]"),
            r"section 3 \[connected\]: kind is connected, but convolutional in",
        ),
    ],
)
def test_the_first_layer_that_is_another_one_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in CFG
    with pytest.raises(InputError, match=message):
        check_structure(build_graph(small(tmp_path), 2), read_cfg(written(tmp_path, CFG.replace(*change, 1))))


def test_another_number_of_layers(tmp_path: Path) -> None:
    graph = build_graph(small(tmp_path), 2)
    with pytest.raises(InputError, match=r"x.cfg: has 5 layers with weights, small has 4"):
        check_structure(graph, read_cfg(written(tmp_path, f"{CFG}[convolutional]\n")))
    with pytest.raises(InputError, match=r"x.cfg: has 1 \[yolo\] sections, but small has 2 detection layers"):
        with_anchors_of(small(tmp_path), graph, read_cfg(written(tmp_path, CFG.replace("[yolo]", "[dropout]", 1))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no configuration of Darknet: must start with"),
        ("[maxpool]\n", "is no configuration of Darknet: must start with"),
        ("width=3\n", r"line 1: must be \[section\] or key = value, found 'width=3'"),
        ("[net]\nwidth\n", r"line 2: must be \[section\] or key = value, found 'width'"),
        ("[net]\n", "has no layer with weights"),
        ("[net]\n[lstm]\n", r"line 2, section 0 \[lstm\]: is of a kind that is not read"),
        ("[net]\nwidth=-4\n[convolutional]\n", "line 1: width: must be a whole number, found '-4'"),
        ("[net]\n[convolutional]\nfilters=99999999999\n", "filters: must be a whole number, found '9999"),
        ("[net]\n[convolutional]\nstride=0\n", "stride: must be above 0, found 0"),
        ("[net]\n[upsample]\nstride=0\n", "stride: must be above 0, found 0"),
        ("[net]\n[route]\n", "layers: is missing"),
        ("[net]\n[route]\nlayers=a\n", "layers: must be numbers, found 'a'"),
        ("[net]\n[route]\nlayers=0\n", "layers: must name layers before it, found 0"),
        ("[net]\n[shortcut]\nfrom=-1\n", "from: must name layers before it, found -1"),
        ("[net]\n[yolo]\nanchors=1,2,3\n", "anchors: must be pairs of numbers above 0, found 3 numbers"),
        ("[net]\n[yolo]\nanchors=1,inf\n", "anchors: must be pairs of numbers above 0"),
        ("[net]\n[yolo]\nanchors=1,2\nmask=1\n", "mask: must be numbers from 0 to 0"),
        ("[net]\n[yolo]\nanchors=1,2\nscale_x_y=0.5\n", "scale_x_y: must be a number of at least 1, found 0.5"),
        ("[net]\n[yolo]\nanchors=1,2\nnew_coords=1\n", "new_coords: boxes are coded in a way that is not read"),
        ("[net]\n" + "[dropout]\n" * 2001, "has more than 2000 sections"),
        ("#" * (MAX_BYTES + 1), "has more than 1,048,576 bytes"),
    ],
)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_cfg(written(tmp_path, text))


def as_cfg(layers: reference.Cfg, outputs: int, classes: int) -> str:
    """The reference's layers as a configuration; its finest level is the one with the largest map."""
    lines = ["[net]"]
    for layer in layers:
        match layer:
            case reference.C():
                filters = -(-layer.filters * reference.WIDTH // 8) * 8 or outputs
                norm = int(layer.filters > 0)
                lines += ["[convolutional]", f"filters={int(filters)}", f"size={layer.size}", f"stride={layer.stride}"]
                lines += [f"groups={layer.groups}", f"activation={layer.activation}", f"batch_normalize={norm}"]
            case "max", size, stride:
                lines += ["[maxpool]", f"size={size}", f"stride={stride}"]
            case "route", *others:
                lines += ["[route]", f"layers={','.join(map(str, others))}"]
            case "shortcut", other, activation:
                lines += ["[shortcut]", f"from={other}", f"activation={activation}"]
            case ("up",):
                lines += ["[upsample]", "stride=2"]
            case ("yolo",):
                lines += ["[yolo]", "anchors=1,1, 2,2, 3,3", f"classes={classes}"]
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in reference.SLOW[:1] + reference.SLOW[2:4] else name
        for name in reference.CFGS
        if name != "cspdarknet53"
    ],
)
def test_published_structures(name: str, tmp_path: Path) -> None:
    cfg = read_cfg(written(tmp_path, as_cfg(reference.CFGS[name], 24, 3)))
    with torch.device("meta"):
        graph = build_graph(f"{name}+width={reference.WIDTH}", 3)
    check_structure(graph, cfg)
    other = "yolov3-tiny-prn" if name == "yolov3-tiny" else "yolov3-tiny"
    with torch.device("meta"):
        graph = build_graph(f"{other}+width={reference.WIDTH}", 3)
    with pytest.raises(InputError, match=r"x.cfg: "):
        check_structure(graph, cfg)
