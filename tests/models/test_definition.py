from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from detect.config.loader import CONFIGS
from detect.errors import InputError
from detect.models.definition import (
    Row,
    Scale,
    definition_to_plain,
    find_definition,
    parse_definition,
    read_definition,
    shipped_models,
    with_args,
)
from tests.models.yamls import TINY, write_model, write_rows

YOLOV5 = CONFIGS / "models" / "yolov5.yaml"
SHIPPED = (
    *("yolov5n", "yolov5s", "yolov5m", "yolov5l"),
    *("yolov5n-spd", "yolov5s-spd", "yolov5m-spd", "yolov5l-spd"),
    "yolov5n-matched",
)


def test_shipped_models() -> None:
    assert set(SHIPPED) <= set(shipped_models())


def test_rows_as_read(tmp_path: Path) -> None:
    text = (
        TINY + "scale: {depth: 0.5, width: 2, channel_multiple: 4}\ndefaults: {activation: relu}\nnorm: {eps: 1e-3}\n"
    )
    definition = read_definition(write_model(tmp_path, text))
    assert definition.name == "tiny"
    assert definition.source == str(tmp_path / "model.yaml")
    assert definition.scale == Scale(depth=0.5, width=2, channel_multiple=4)
    assert definition.defaults == {"activation": "relu"}
    assert definition.norm == {"eps": 0.001}
    stem, down, detect = definition.rows
    assert stem == Row(
        section="backbone",
        name="stem",
        module="Conv",
        inputs=("image",),
        args={"out_channels": 8, "kernel_size": 3, "stride": 2},
        repeats=1,
        reduction=2,
    )
    assert (down.inputs, down.reduction, down.label) == (("stem",), None, "backbone.down")
    assert (detect.inputs, detect.label) == (("stem", "down"), "head.detect")


def test_what_may_be_left_out(tmp_path: Path) -> None:
    definition = read_definition(write_rows(tmp_path, "name: a, module: Conv"))
    assert definition.scale == Scale(depth=1.0, width=1.0, channel_multiple=8)
    assert (definition.defaults, definition.norm) == ({}, {})
    assert read_definition(write_model(tmp_path, TINY + "scale:\ndefaults:\nnorm:\n")).scale == Scale()


# --------------------------------------------------------------------------------------- variants, names


def test_variant_takes_scale_and_defaults() -> None:
    plain, spd = find_definition("yolov5s"), find_definition("yolov5s-spd")
    assert (plain.name, plain.scale) == ("yolov5s", Scale(depth=0.33, width=0.5))
    assert (spd.name, spd.scale) == ("yolov5s-spd", plain.scale)
    assert plain.defaults == {"downsample": "stride", "order": "conv_first", "activation": "silu"}
    assert spd.defaults == {**plain.defaults, "downsample": "spd"}
    assert spd.rows == plain.rows


def test_file_and_variant() -> None:
    assert find_definition(f"{YOLOV5}:yolov5m-spd") == find_definition("yolov5m-spd")
    assert find_definition(str(YOLOV5)) == find_definition("yolov5n") == find_definition(f"{YOLOV5}:yolov5n")


def test_variant_of_a_model_without_scale(tmp_path: Path) -> None:
    path = write_model(tmp_path, TINY + "variants:\n  tiny-relu: {defaults: {activation: relu}}\n  same:\n")
    assert find_definition(f"{path}:tiny-relu").defaults == {"activation": "relu"}
    assert find_definition(f"{path}:same").scale == Scale()


def test_one_word_makes_it_spd(tmp_path: Path) -> None:
    """The paper's comparison as the user would edit it: ``downsample: spd`` in a copy of the baseline."""
    text = YOLOV5.read_text(encoding="utf-8")
    edited, number = re.subn(r"(?m)^(defaults: \{)downsample: stride\b", r"\1downsample: spd", text)
    assert number == 1
    copy, shipped = read_definition(write_model(tmp_path, edited)), find_definition("yolov5n-spd")
    assert {**definition_to_plain(copy), "name": ""} == {**definition_to_plain(shipped), "name": ""}


# ------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("name", SHIPPED)
def test_plain_and_back(name: str) -> None:
    definition = find_definition(name)
    plain = json.loads(json.dumps(definition_to_plain(definition)))
    assert parse_definition(plain, definition.source) == definition


def test_plain_is_a_copy() -> None:
    definition = find_definition("yolov5n")
    plain = definition_to_plain(definition)
    plain["defaults"]["downsample"] = plain["scale"]["width"] = plain["norm"]["eps"] = "changed"
    plain["backbone"][0]["args"]["out_channels"] = "changed"
    assert definition == find_definition("yolov5n")


def test_replaced_args() -> None:
    definition = find_definition("yolov5n")
    changed = with_args(definition, "Downsample", kernel_size=1)
    assert [row.args.get("kernel_size") for row in changed.rows if row.module == "Downsample"] == [1] * 6
    assert [row for row in changed.rows if row.module != "Downsample"] == [
        row for row in definition.rows if row.module != "Downsample"
    ]
    assert changed.rows[1].args["out_channels"] == 128
    assert definition == find_definition("yolov5n")


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "yolov5n-sdp",
            r"^model 'yolov5n-sdp' is neither a \.yaml file nor a shipped model; did you mean 'yolov5n-spd'\?$",
        ),
        ("resnet", r"nor a shipped model; allowed: yolov5l, "),
        ("", r"^model '' is neither"),
        ("none.yaml", r"^none\.yaml: cannot be read: No such file or directory$"),
        ("none.yaml:x", r"^none\.yaml: cannot be read: No such file or directory$"),
        (f"{YOLOV5}:yolov5n-sdp", r"yolov5\.yaml: has no model 'yolov5n-sdp'; did you mean 'yolov5n-spd'\?$"),
        (f"{YOLOV5}:", r"yolov5\.yaml: has no model ''; allowed: "),
    ],
)
def test_unknown_models(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_definition(name)


WORD = "must be a word of letters, digits and _"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["name: a, modul: Conv"], r"backbone, row 1 \(backbone\.a\): unknown key 'modul'; did you mean 'module'\?$"),
        (["name: a"], r"\(backbone\.a\): module: must be a class name, found None$"),
        (["name: a, module: 3"], r"\(backbone\.a\): module: must be a class name, found 3$"),
        (["module: Conv"], rf"backbone, row 1: name: {WORD}, found None$"),
        (["name: 3, module: Conv"], rf"backbone, row 1: name: {WORD}, found 3$"),
        (["name: a.b, module: Conv"], rf"name: {WORD}, found 'a\.b'$"),
        (["name: '', module: Conv"], rf"name: {WORD}, found ''$"),
        (["name: a, module: Conv"] * 2, r"backbone, row 2 \(backbone\.a\): name: 'a' is taken by a row above$"),
        (["name: image, module: Conv"], r"name: 'image' is taken"),
        (
            ["name: stem, module: Conv", "name: a, module: Conv, from: setm"],
            r"row 2 \(backbone\.a\): from: unknown layer 'setm'; did you mean 'stem'\?$",
        ),
        (["name: a, module: Conv, from: a"], r"from: unknown layer 'a'; "),
        (
            ["name: a, module: Conv, from: b", "name: b, module: Conv"],
            r"row 1 \(backbone\.a\): from: unknown layer 'b'",
        ),
        (["name: a, module: Conv, from: -1"], r"from: -1 is not a name; rows are referred to by name, not by number$"),
        (["name: a, module: Concat, from: [image, 6]"], r"from: 6 is not a name"),
        (["name: a, module: Conv, from: []"], r"from: is empty; name rows above$"),
        (["name: a, module: Conv, from:"], r"from: None is not a name"),
        (["name: a, module: Conv, args: 3"], r"\(backbone\.a\): args: must be a mapping, found 3$"),
        (["name: a, module: Conv, args: [1]"], r"args: must be a mapping, found \[1\]$"),
        (["name: a, module: C3, repeats: 0"], r"repeats: must be a whole number above 0, found 0$"),
        (["name: a, module: C3, repeats: 1.5"], r"repeats: must be a whole number above 0, found 1\.5$"),
        (["name: a, module: C3, repeats: true"], r"repeats: must be a whole number above 0, found True$"),
        (["name: a, module: Conv, reduction: -2"], r"reduction: must be a whole number above 0, found -2$"),
        (["name: a, module: Conv, name: b"], r"key 'name' stands twice$"),
    ],
)
def test_wrong_rows(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_definition(write_rows(tmp_path, *rows))
    assert str(caught.value).startswith(f"{tmp_path / 'model.yaml'}:")
    assert "\n" not in str(caught.value)


ROW = "backbone:\n  - {name: a, module: Conv}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\n", r"has no rows; give at least one section of backbone, neck, head$"),
        ("name: x\nbackbone: []\n", r"has no rows"),
        ("name: x\nbackbone:\n", r"backbone: must be a list of rows$"),
        ("name: x\nbackbone: {name: a}\n", r"backbone: must be a list of rows$"),
        ("name: x\nbackbone: [Conv]\n", r"backbone, row 1: must be a mapping with name, module, from, "),
        ("name: x\nneck: [3]\n", r"neck, row 1: must be a mapping"),
        (ROW, r"name: must be text, found None$"),
        (f"name: 5\n{ROW}", r"name: must be text, found 5$"),
        (f"name: x\nbackbon: []\n{ROW}", r"unknown key 'backbon'; did you mean 'backbone'\?$"),
        (f"name: x\nscale: n\n{ROW}", r"scale: unknown 'n'; nothing is allowed here$"),
        (f"name: x\nscale: k\nscales: {{n: {{}}, s: {{}}}}\n{ROW}", r"scale: unknown 'k'; allowed: n, s$"),
        (f"name: x\nscale: n\nscales: [n]\n{ROW}", r"scales: must be a mapping, found \['n'\]$"),
        (
            f"name: x\nscale: 2\n{ROW}",
            r"scale: must be a mapping with depth, width, channel_multiple, or a key of scales$",
        ),
        (f"name: x\nscale: {{widht: 1}}\n{ROW}", r"scale: unknown key 'widht'; did you mean 'width'\?$"),
        (f"name: x\nscale: {{width: 0}}\n{ROW}", r"scale\.width: must be a number above 0, found 0$"),
        (f"name: x\nscale: {{depth: -1}}\n{ROW}", r"scale\.depth: must be a number above 0, found -1$"),
        (f"name: x\nscale: {{depth: .nan}}\n{ROW}", r"scale\.depth: must be a number above 0, found nan$"),
        (f"name: x\nscale: {{width: true}}\n{ROW}", r"scale\.width: must be a number above 0, found True$"),
        (f"name: x\nscale: {{width: '1'}}\n{ROW}", r"scale\.width: must be a number above 0, found '1'$"),
        (
            f"name: x\nscale: {{channel_multiple: 8.0}}\n{ROW}",
            r"scale\.channel_multiple: must be a whole number above 0, found 8\.0$",
        ),
        (f"name: x\ndefaults: spd\n{ROW}", r"defaults: must be a mapping, found 'spd'$"),
        (f"name: x\nnorm: {{epsilon: 0.1}}\n{ROW}", r"norm: unknown key 'epsilon'; did you mean 'eps'\?$"),
        (f"name: x\nnorm: {{eps: 0}}\n{ROW}", r"norm\.eps: must be a number in \(0, 1\), found 0$"),
        (f"name: x\nnorm: {{momentum: 1}}\n{ROW}", r"norm\.momentum: must be a number in \(0, 1\), found 1$"),
        (f"name: x\nnorm: {{eps: tiny}}\n{ROW}", r"norm\.eps: must be a number in \(0, 1\), found 'tiny'$"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_definition(write_model(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'model.yaml'}:")


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("", r"has no model 'v'; allowed: tiny$"),
        ("variants: [v]", r"variants: must be a mapping, found \['v'\]$"),
        ("variants: {w: {}}", r"has no model 'v'; allowed: tiny, w$"),
        ("variants: {v: spd}", r"variants: v: must be a mapping, found 'spd'$"),
        ("variants: {v: {default: {}}}", r"variants\.v: unknown key 'default'; did you mean 'defaults'\?$"),
        ("variants: {v: {defaults: spd}}", r"defaults: must be a mapping, found 'spd'$"),
        ("variants: {v: {scale: q}}", r"scale: unknown 'q'"),
    ],
)
def test_wrong_variants(tmp_path: Path, variants: str, message: str) -> None:
    path = write_model(tmp_path, f"{TINY}{variants}\n")
    with pytest.raises(InputError, match=message):
        find_definition(f"{path}:v")
