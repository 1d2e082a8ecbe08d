from __future__ import annotations

import json
from pathlib import Path

import pytest

from detect.config.model import Convolutions, Scale
from detect.errors import InputError
from detect.models.catalog import find_definition
from detect.models.definition import (
    Row,
    Section,
    definition_to_plain,
    parse_definition,
    with_args,
    with_conv,
    with_options,
)
from tests.models.yamls import TINY, read_model, write_model, write_rows


def test_rows_as_read(tmp_path: Path) -> None:
    text = (
        TINY + "scale: {depth: 0.5, width: 2, channel_multiple: 4}\ndefaults: {activation: relu}\nnorm: {eps: 1e-3}\n"
    )
    definition = read_model(write_model(tmp_path, text))
    assert definition.name == "tiny"
    assert definition.source == str(tmp_path / "model.yaml")
    backbone, head = definition.sections
    assert [section.name for section in definition.sections] == ["backbone", "head"]
    for section in definition.sections:
        assert section.scale == Scale(depth=0.5, width=2, channel_multiple=4)
        assert section.defaults == {"activation": "relu"}
        assert section.norm == {"eps": 0.001}
        assert section.source == definition.source
    stem, down = backbone.rows
    (detect,) = head.rows
    assert definition.rows == (stem, down, detect)
    assert stem == Row(
        section="backbone",
        name="stem",
        module="Conv",
        inputs=("image",),
        args={"out_channels": 8, "kernel_size": 3, "stride": 2},
        repeats=1,
        reduction=2,
        conv=None,
    )
    assert (down.inputs, down.reduction, down.label) == (("stem",), None, "backbone.down")
    assert (detect.inputs, detect.label) == (("stem", "down"), "head.detect")


def test_what_may_be_left_out(tmp_path: Path) -> None:
    (section,) = read_model(write_rows(tmp_path, "name: a, module: Conv")).sections
    assert (section.scale, section.defaults, section.norm) == (Scale(depth=1.0, width=1.0, channel_multiple=8), {}, {})
    assert section.conv == Convolutions("standard")
    assert read_model(write_model(tmp_path, TINY + "scale:\ndefaults:\nnorm:\nconv:\n")).sections == (
        read_model(write_model(tmp_path, TINY)).sections
    )


def test_a_section_overrules_the_model() -> None:
    """The mapping form of a section, as checkpoints hold it; an empty section is none."""
    rows = [{"name": "a", "module": "Conv"}]
    plain = {
        "name": "m",
        "scale": {"width": 0.5},
        "defaults": {"activation": "relu", "order": "conv_first"},
        "norm": {"eps": 0.1, "momentum": 0.2},
        "backbone": {"rows": rows, "scale": {"depth": 2.0}, "defaults": {"activation": "silu"}, "norm": {"eps": 0.3}},
        "neck": [],
        "head": [{"name": "b", "module": "Conv"}],
    }
    backbone, head = parse_definition(plain, "m.yaml").sections
    assert backbone.scale == Scale(depth=2.0)
    assert backbone.defaults == {"activation": "silu", "order": "conv_first"}
    assert backbone.norm == {"eps": 0.3, "momentum": 0.2}
    assert head.scale == Scale(width=0.5)
    assert head.defaults == {"activation": "relu", "order": "conv_first"}
    assert head.rows[0].inputs == ("a",)


def test_words_overrule_all_sections() -> None:
    definition = with_options(find_definition("yolov5n"), {"downsample": "spd"}, {"width": 2}, "here")
    assert {section.defaults["downsample"] for section in definition.sections} == {"spd"}
    assert {section.scale for section in definition.sections} == {Scale(depth=0.33, width=0.5)}  # 0.25 * 2
    (same,) = {s.scale for s in with_options(definition, {}, {"depth": 2, "channel_multiple": 4}, "here").sections}
    assert same == Scale(depth=0.66, width=0.5, channel_multiple=4)
    with pytest.raises(InputError, match=r"^here: scale\.width: must be a number above 0 and below 1000, found 0$"):
        with_options(definition, {}, {"width": 0}, "here")


def test_convolutions_of_model_section_and_row(tmp_path: Path) -> None:
    """A word or a mapping; each overrules the one around it as a whole."""
    rows = TINY.replace("args: {out_channels: 16}}", "args: {out_channels: 16}, conv: depthwise}")
    backbone, head = read_model(write_model(tmp_path, rows + "conv: {kind: bdsc, p: 1.5}\n")).sections
    assert backbone.conv == head.conv == Convolutions("bdsc", 1.5)
    assert [row.conv for row in backbone.rows] == [None, Convolutions("depthwise")]
    plain = definition_to_plain(read_model(write_model(tmp_path, rows + "conv: bdsc-float\n")))
    plain["conv"] = "bdsc"
    plain["head"]["conv"] = None
    backbone, head = parse_definition(plain, "m.yaml").sections
    assert (backbone.conv, head.conv) == (Convolutions("bdsc-float", 1), Convolutions("bdsc", 1))


def test_options_of_binary_convolutions(tmp_path: Path) -> None:
    """Of the model and of a row; the definition as a checkpoint holds it says all of them."""
    rows = TINY.replace("args: {out_channels: 16}}", "args: {out_channels: 16}, conv: {kind: bdsc-float, p_of: input}}")
    definition = read_model(write_model(tmp_path, rows + "conv: {kind: bdsc, norm: false}\n"))
    assert definition.sections[0].conv == Convolutions("bdsc", 1, "output", norm=False)
    assert definition.rows[1].conv == Convolutions("bdsc-float", 1, "input", norm=True)
    plain = definition_to_plain(definition)
    assert plain["backbone"]["conv"] == {"kind": "bdsc", "p": 1, "p_of": "output", "norm": False}
    assert plain["backbone"]["rows"][1]["conv"] == {"kind": "bdsc-float", "p": 1, "p_of": "input", "norm": True}
    assert parse_definition(json.loads(json.dumps(plain)), definition.source) == definition


def test_convolutions_of_an_older_checkpoint() -> None:
    """Which says nothing of what has come since."""
    plain = definition_to_plain(find_definition("resnet18+bdsc+p=2"))
    plain["backbone"]["conv"] = {"kind": "bdsc", "p": 2}
    assert parse_definition(plain, "m.yaml").sections == find_definition("resnet18+bdsc+p=2").sections


def test_other_convolutions(tmp_path: Path) -> None:
    """``p`` alone reaches the sections that have one; a kind reaches all, with a ``p`` of its own; rows keep theirs."""
    rows = TINY.replace("args: {out_channels: 16}}", "args: {out_channels: 16}, conv: {kind: bdsc, p: 4}}")
    plain = definition_to_plain(read_model(write_model(tmp_path, rows)))
    plain["backbone"]["conv"] = {"kind": "bdsc-float", "p": 2}
    definition = parse_definition(plain, "m.yaml")

    def found(words: dict[str, object]) -> list[Convolutions]:
        changed = with_conv(definition, words, "here")
        assert changed.rows == definition.rows
        return [section.conv for section in changed.sections]

    assert found({}) == [Convolutions("bdsc-float", 2), Convolutions("standard")]
    assert found({"p": 3}) == [Convolutions("bdsc-float", 3), Convolutions("standard")]
    assert found({"p_of": "input"}) == [Convolutions("bdsc-float", 2, "input"), Convolutions("standard")]
    assert found({"norm": False}) == [Convolutions("bdsc-float", 2, norm=False), Convolutions("standard")]
    assert found({"kind": "bdsc"}) == [Convolutions("bdsc", 1)] * 2
    assert found({"kind": "standard"}) == [Convolutions("standard")] * 2
    with pytest.raises(InputError, match=r"^here: conv\.p: belongs to the kinds bdsc and bdsc-float, found depthwise$"):
        with_conv(definition, {"kind": "depthwise", "p": 2}, "here")
    with pytest.raises(
        InputError, match=r"^here: conv\.p: belongs to the kinds bdsc and bdsc-float, which no section "
    ):
        with_conv(with_conv(definition, {"kind": "standard"}, "here"), {"p": 2}, "here")
    with pytest.raises(InputError, match=r"^here: conv\.norm: belongs to the kinds .*, found standard$"):
        with_conv(definition, {"kind": "standard", "norm": True}, "here")


# ------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize(
    "name",
    [
        "yolov5n",
        "yolov5s-spd",
        "yolov5n-matched",
        "cspdarknet53",
        "peleenet+spd",
        "yolov5n+bdsc+p=0.5",
        "yolov5n+bdsc+p_of=input",
    ],
)
def test_plain_and_back(name: str) -> None:
    definition = find_definition(name)
    plain = json.loads(json.dumps(definition_to_plain(definition)))
    assert parse_definition(plain, definition.source) == definition


def test_convolutions_of_rows_and_back(tmp_path: Path) -> None:
    rows = TINY.replace("16}}", "16}, conv: standard}").replace("reduction: 2}", "conv: {kind: bdsc, p: 2}}")
    definition = read_model(write_model(tmp_path, rows + "conv: depthwise\n"))
    assert [row.conv for row in definition.rows] == [Convolutions("bdsc", 2), Convolutions("standard"), None]
    assert parse_definition(json.loads(json.dumps(definition_to_plain(definition))), definition.source) == definition


def test_plain_is_a_copy() -> None:
    definition = find_definition("yolov5n")
    plain = definition_to_plain(definition)
    section = plain["backbone"]
    section["defaults"]["downsample"] = section["scale"]["width"] = section["norm"]["eps"] = "changed"
    section["rows"][0]["args"]["out_channels"] = "changed"
    assert definition == find_definition("yolov5n")


def test_where_a_section_comes_from_does_not_matter() -> None:
    """A checkpoint's model is the one that it was saved from, though its YAML is elsewhere."""
    section = find_definition("yolov5n").sections[0]
    assert section == Section(**{**vars(section), "source": "elsewhere.yaml"})


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


WORD = "must be a word of letters, digits and _"
INPUT = "must be the name of a row above, or image"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["name: a, modul: Conv"],
            r"backbone\.a\.modul: unknown key; did you mean 'module'\?; backbone\.a\.module: is missing$",
        ),
        (["name: a"], r": backbone\.a\.module: is missing$"),
        (["name: a, module: 3"], r"backbone\.a\.module: must be a class name, found 3$"),
        (["module: Conv"], r"backbone\[0\]\.name: is missing$"),
        (["name: 3, module: Conv"], rf"backbone\[0\]\.name: {WORD}, found 3$"),
        (["name: a.b, module: Conv"], rf"name: {WORD}, found 'a\.b'$"),
        (["name: '', module: Conv"], rf"name: {WORD}, found ''$"),
        (["name: a, module: Conv"] * 2, r": backbone\.a: name: 'a' is taken by a row above$"),
        (["name: image, module: Conv"], r"name: 'image' is taken"),
        (
            ["name: stem, module: Conv", "name: a, module: Conv, from: setm"],
            r": backbone\.a: from: unknown layer 'setm'; did you mean 'stem'\?$",
        ),
        (["name: a, module: Conv, from: a"], r"from: unknown layer 'a'; "),
        (
            ["name: a, module: Conv, from: b", "name: b, module: Conv"],
            r": backbone\.a: from: unknown layer 'b'",
        ),
        (["name: a, module: Conv, from: -1"], rf"backbone\.a\.from: {INPUT}, found -1$"),
        (["name: a, module: Concat, from: [image, 6]"], rf"backbone\.a\.from\[1\]: {INPUT}, found 6$"),
        (["name: a, module: Conv, from: []"], r"backbone\.a\.from: is empty; name rows above$"),
        (["name: a, module: Conv, from:"], rf"backbone\.a\.from: {INPUT}, found None$"),
        (["name: a, module: Conv, args: 3"], r"backbone\.a\.args: must be a mapping, found 3$"),
        (["name: a, module: Conv, args: [1]"], r"args: must be a mapping, found a list$"),
        (["name: a, module: C3, repeats: 0"], r"repeats: must be a whole number above 0, found 0$"),
        (["name: a, module: C3, repeats: 1.5"], r"repeats: must be a whole number above 0, found 1\.5$"),
        (["name: a, module: C3, repeats: true"], r"repeats: must be a whole number above 0, found True$"),
        (["name: a, module: Conv, reduction: -2"], r"reduction: must be a whole number above 0, found -2$"),
        (["name: a, module: Conv, name: b"], r"duplicate key 'name'$"),
        (
            ["name: a, module: Conv, conv: bdcs"],
            r"backbone\.a\.conv: 'bdcs' is not allowed; did you mean 'bdsc'\?$",
        ),
    ],
)
def test_wrong_rows(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_model(write_rows(tmp_path, *rows))
    assert str(caught.value).startswith(f"{tmp_path / 'model.yaml'}:")
    assert "\n" not in str(caught.value)


ROW = "backbone:\n  - {name: a, module: Conv}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\n", r"has no rows; give at least one section of backbone, neck, head$"),
        ("name: x\nbackbone: []\n", r"has no rows"),
        ("name: x\nbackbone:\n", r"has no rows"),
        ("name: x\nbackbone: 3\n", r"backbone: must be the name of a part, or a list of rows, found 3$"),
        ("name: x\nbackbone: {rows: 3}\n", r"backbone\.rows: must be a list, found 3$"),
        ("name: x\nbackbone: {rows: [], depth: 3}\n", r"backbone\.depth: unknown key; allowed: "),
        ("name: x\nbackbone: [Conv]\n", r"backbone\[0\]: must be a mapping, found text$"),
        ("name: x\nneck: [3]\n", r"neck\[0\]: must be a mapping, found 3$"),
        (ROW, r"name: is missing$"),
        (f"name: 5\n{ROW}", r"name: must be text, found 5$"),
        (f"name: x\nbackbon: []\n{ROW}", r"backbon: unknown key; did you mean 'backbone'\?$"),
        (f"name: x\nscale: n\n{ROW}", r"scale: unknown 'n'; nothing is allowed here$"),
        (f"name: x\nscale: k\nscales: {{n: {{}}, s: {{}}}}\n{ROW}", r"scale: unknown 'k'; allowed: n, s$"),
        (f"name: x\nscale: n\nscales: [n]\n{ROW}", r"scales: must be a mapping, found a list$"),
        (
            f"name: x\nscale: 2\n{ROW}",
            r"scale: must be a mapping, found 2$",
        ),
        (f"name: x\nscale: {{widht: 1}}\n{ROW}", r"scale\.widht: unknown key; did you mean 'width'\?$"),
        (f"name: x\nscale: {{width: 0}}\n{ROW}", r"scale\.width: must be a number above 0 and below 1000, found 0$"),
        (f"name: x\nscale: {{depth: -1}}\n{ROW}", r"scale\.depth: must be a number above 0 and below 1000, found -1$"),
        (
            f"name: x\nscale: {{depth: .nan}}\n{ROW}",
            r"scale\.depth: must be a number above 0 and below 1000, found nan$",
        ),
        (
            f"name: x\nscale: {{width: true}}\n{ROW}",
            r"scale\.width: must be a number above 0 and below 1000, found True$",
        ),
        (
            f"name: x\nscale: {{width: '1'}}\n{ROW}",
            r"scale\.width: must be a number above 0 and below 1000, found '1'$",
        ),
        (
            f"name: x\nscale: {{channel_multiple: 8.0}}\n{ROW}",
            r"scale\.channel_multiple: must be a whole number above 0 and below 1000, found 8\.0$",
        ),
        (f"name: x\ndefaults: spd\n{ROW}", r"defaults: must be a mapping, found text$"),
        (f"name: x\nnorm: {{epsilon: 0.1}}\n{ROW}", r"norm\.epsilon: unknown key; did you mean 'eps'\?$"),
        (f"name: x\nnorm: {{eps: 0}}\n{ROW}", r"norm\.eps: must be a number in \(0, 1\), found 0$"),
        (f"name: x\nnorm: {{momentum: 1}}\n{ROW}", r"norm\.momentum: must be a number in \(0, 1\), found 1$"),
        (f"name: x\nnorm: {{eps: tiny}}\n{ROW}", r"norm\.eps: must be a number in \(0, 1\), found 'tiny'$"),
        (
            f"name: x\nconv: 3\n{ROW}",
            r"conv: 3 is not allowed; allowed: standard, separable, bdsc, bdsc-float, depthwise$",
        ),
        (f"name: x\nconv: [bdsc]\n{ROW}", r"conv: \['bdsc'\] is not allowed; "),
        (f"name: x\nconv: {{}}\n{ROW}", r"conv: None is not allowed; allowed: "),
        (f"name: x\nconv: {{p: 2}}\n{ROW}", r"conv: None is not allowed; allowed: "),
        (f"name: x\nconv: {{kind: bdsc, s: 2}}\n{ROW}", r"conv\.s: unknown key; allowed: kind, norm, p, p_of$"),
        (
            f"name: x\nconv: {{kind: standard, p: 1}}\n{ROW}",
            r"conv\.p: belongs to the kinds bdsc and bdsc-float, found standard$",
        ),
        *(
            (
                f"name: x\nconv: {{kind: bdsc, p: {p}}}\n{ROW}",
                r"conv\.p: must be a number above 0 and below 1000, found ",
            )
            for p in ("0", "-1", ".nan", "1000", "true", "'1'", "null")
        ),
        (
            f"name: x\nconv: {{kind: bdsc, p_of: inputs}}\n{ROW}",
            r"conv\.p_of: 'inputs' is not allowed; did you mean 'input'\?$",
        ),
        (
            f"name: x\nconv: {{kind: bdsc, p_of: null}}\n{ROW}",
            r"conv\.p_of: None is not allowed; allowed: output, input$",
        ),
        (
            f"name: x\nconv: {{kind: bdsc, p_of: [input]}}\n{ROW}",
            r"conv\.p_of: \['input'\] is not allowed; allowed: output, input$",
        ),
        (f"name: x\nconv: {{kind: bdsc, norm: 0}}\n{ROW}", r"conv\.norm: must be true or false, found 0$"),
        (f"name: x\nconv: {{kind: bdsc, norm: 'no'}}\n{ROW}", r"conv\.norm: must be true or false, found 'no'$"),
        (
            f"name: x\nconv: {{kind: depthwise, norm: true}}\n{ROW}",
            r"conv\.norm: belongs to the kinds bdsc and bdsc-float, found depthwise$",
        ),
        (
            f"name: x\nconv: {{kind: standard, p_of: output}}\n{ROW}",
            r"conv\.p_of: belongs to the kinds bdsc and bdsc-float, found standard$",
        ),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_model(write_model(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'model.yaml'}:")


def test_all_mistakes_of_a_file(tmp_path: Path) -> None:
    """In the order of the file, in every section and variant; also where two sections have the same mistake."""
    text = (
        "name: 5\n"
        "backbone: [{name: a, module: Conv, repeats: 0, conv: {kind: depthwise, p: 2}}]\n"
        "neck: {rows: [], override: {a: {}}}\n"
        "head: {rows: [{module: 3}], override: {a: {}}}\n"
        "variants: {v: {nek: fpn}}\n"
    )
    path = write_model(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_model(path)
    assert str(caught.value).removeprefix(f"{path}: ").split("; ") == [
        "name: must be text, found 5",
        "backbone.a.repeats: must be a whole number above 0, found 0",
        "backbone.a.conv.p: belongs to the kinds bdsc and bdsc-float, found depthwise",
        "neck.override: changes rows of a part",
        "here are rows of its own",
        "head.rows[0].module: must be a class name, found 3",
        "head.rows[0].name: is missing",
        "variants.v.nek: unknown key",
        "did you mean 'neck'?",
    ]


def test_a_definition_names_no_file() -> None:
    """A checkpoint's definition is a stranger's: it must not open files."""
    with pytest.raises(InputError, match=r"^m\.pt: backbone: must have rows, found the part '\.\./mine\.yaml'$"):
        parse_definition({"name": "m", "backbone": {"part": "../mine.yaml"}}, "m.pt")
