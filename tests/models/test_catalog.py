from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from detect.config.model import Convolutions, Scale
from detect.config.yaml_files import CONFIGS
from detect.errors import InputError
from detect.models.build import build_model
from detect.models.catalog import SHORT_OPTIONS, find_definition, shipped_models, shipped_parts
from detect.models.definition import ModelDefinition, Row, definition_to_plain
from tests.models.yamls import TINY, write_model

YOLOV5 = CONFIGS / "models" / "yolov5.yaml"
SHIPPED = (
    *("yolov5n", "yolov5s", "yolov5m", "yolov5l"),
    *("yolov5n-spd", "yolov5s-spd", "yolov5m-spd", "yolov5l-spd"),
    "yolov5n-matched",
)


def row(definition: ModelDefinition, name: str) -> Row:
    """The row of that name."""
    return next(row for row in definition.rows if row.name == name)


def words(definition: ModelDefinition, section: str) -> dict[str, object]:
    """The defaults of a section."""
    return next(s for s in definition.sections if s.name == section).defaults


def test_shipped_models() -> None:
    assert set(SHIPPED) <= set(shipped_models())


def test_names_are_unambiguous() -> None:
    """What a model's name starts with is a model or a backbone; what follows is a neck, a head or a word."""
    assert not set(shipped_models()) & set(shipped_parts("backbone"))
    assert not set(shipped_parts("neck")) & set(shipped_parts("head"))
    for name in [*shipped_models(), *(n for s in ("backbone", "neck", "head") for n in shipped_parts(s))]:
        assert re.fullmatch(r"[a-z0-9-]+", name), name
        assert name not in SHORT_OPTIONS


# ---------------------------------------------------------------------------------------------- variants


def test_variant_takes_scale_and_defaults() -> None:
    plain, spd = find_definition("yolov5s"), find_definition("yolov5s-spd")
    assert (plain.name, spd.name) == ("yolov5s", "yolov5s-spd")
    assert {section.scale for section in (*plain.sections, *spd.sections)} == {Scale(depth=0.33, width=0.5)}
    assert words(plain, "neck") == {"downsample": "stride", "order": "conv_first", "activation": "silu"}
    assert words(spd, "neck") == {**words(plain, "neck"), "downsample": "spd"}
    assert spd.rows == plain.rows


def test_file_and_variant() -> None:
    assert find_definition(f"{YOLOV5}:yolov5m-spd") == find_definition("yolov5m-spd")
    assert find_definition(str(YOLOV5)) == find_definition("yolov5n") == find_definition(f"{YOLOV5}:yolov5n")


def test_variant_of_a_model_without_scale(tmp_path: Path) -> None:
    path = write_model(tmp_path, TINY + "variants:\n  tiny-relu: {defaults: {activation: relu}}\n  same:\n")
    assert words(find_definition(f"{path}:tiny-relu"), "backbone") == {"activation": "relu"}
    assert find_definition(f"{path}:same").sections[0].scale == Scale()


def test_variant_replaces_a_part(tmp_path: Path) -> None:
    text = "name: a\nbackbone: peleenet\nneck: yolov5-panet\nhead: yolov5\nvariants: {b: {backbone: csppeleenet}}\n"
    path = write_model(tmp_path, text)
    assert words(find_definition(str(path)), "backbone")["fusion"] == "none"
    assert words(find_definition(f"{path}:b"), "backbone")["fusion"] == "csp"


def test_one_word_makes_it_spd(tmp_path: Path) -> None:
    """The paper's comparison as the user would edit it: ``downsample: spd`` in a copy of the baseline."""
    text = YOLOV5.read_text(encoding="utf-8")
    edited, number = re.subn(r"(?m)^(defaults: \{)downsample: stride\b", r"\1downsample: spd", text)
    assert number == 1
    copy, shipped = find_definition(str(write_model(tmp_path, edited))), find_definition("yolov5n-spd")
    assert {**definition_to_plain(copy), "name": ""} == {**definition_to_plain(shipped), "name": ""}


# ------------------------------------------------------------------------------------------------- parts


PARTS = "name: m\nneck: yolov5-panet\nhead: yolov5\n"


def test_parts_put_together(tmp_path: Path) -> None:
    definition = find_definition(str(write_model(tmp_path, PARTS + "backbone: cspdarknet53\n")))
    assert [section.name for section in definition.sections] == ["backbone", "neck", "head"]
    assert [Path(section.source).parent.name for section in definition.sections] == ["backbones", "necks", "heads"]
    assert row(definition, "spp").inputs == ("c5",)
    assert row(definition, "detect").inputs == ("p3", "p4", "p5")


def test_whose_word_counts(tmp_path: Path) -> None:
    """A part's words, overruled by the model's, overruled by those of the reference, overruled by the name's."""
    text = PARTS + (
        "backbone: {part: cspdarknet53, scale: {width: 0.5}, defaults: {gamma: 0.75}, norm: {eps: 0.25}}\n"
        "scale: {width: 0.25}\ndefaults: {activation: mish, gamma: 0.25}\nnorm: {eps: 0.125, momentum: 0.5}\n"
    )
    path = write_model(tmp_path, text)
    backbone, neck, _ = find_definition(str(path)).sections
    assert {"downsample": "stride", "activation": "mish", "gamma": 0.75}.items() <= backbone.defaults.items()
    assert backbone.norm == {"eps": 0.25, "momentum": 0.5}
    assert (backbone.scale, neck.scale) == (Scale(width=0.5), Scale(width=0.25))
    assert (neck.defaults["activation"], neck.norm) == ("mish", {"eps": 0.125, "momentum": 0.5})
    named = find_definition(f"{path}+gamma=0.5+width=0.125").sections
    assert named[0].defaults["gamma"] == 0.5
    assert (named[0].scale, named[1].scale) == (Scale(width=0.0625), Scale(width=0.03125))  # 0.125 of each


def test_scale_of_a_reference_by_name(tmp_path: Path) -> None:
    text = PARTS + "backbone: {part: peleenet, scale: small}\nscales: {small: {width: 0.5}}\n"
    backbone, neck, _ = find_definition(str(write_model(tmp_path, text))).sections
    assert (backbone.scale, neck.scale) == (Scale(width=0.5), Scale())


def test_rows_of_a_part_are_changed(tmp_path: Path) -> None:
    change = "override: {c3: {repeats: 2, args: {block: basic}}, stem: {module: Stem}}"
    text = PARTS + f"backbone: {{part: cspdarknet53, {change}}}\n"
    changed = find_definition(str(write_model(tmp_path, text)))
    plain = find_definition("cspdarknet53")
    assert (row(changed, "c3").repeats, row(plain, "c3").repeats) == (2, 8)
    assert row(changed, "c3").args == {**row(plain, "c3").args, "block": "basic"}
    assert (row(changed, "stem").module, row(changed, "stem").args) == ("Stem", row(plain, "stem").args)
    assert row(changed, "c4") == row(plain, "c4")


def test_a_part_of_ones_own(tmp_path: Path) -> None:
    """A file beside the model's, like the shipped ones, variants included."""
    part = YOLOV5.parents[1] / "backbones" / "peleenet.yaml"
    (tmp_path / "mine.yaml").write_text(part.read_text(encoding="utf-8"), encoding="utf-8")
    own = find_definition(str(write_model(tmp_path, PARTS + "backbone: mine.yaml:csppeleenet\n")))
    assert own.sections[0] == find_definition("csppeleenet").sections[0]
    assert own.sections[0].source == str(tmp_path / "mine.yaml")
    plain = find_definition(str(write_model(tmp_path, PARTS + "backbone: {part: mine.yaml}\n")))
    assert plain.sections[0] == find_definition("peleenet").sections[0]


# ------------------------------------------------------------------------------------------------- names


def test_a_backbone_alone_is_a_classifier() -> None:
    definition = find_definition("peleenet")
    assert (definition.name, definition.rows[-1].module) == ("peleenet", "Classify")


def test_a_neck_brings_its_head() -> None:
    definition = find_definition("cspdarknet53+yolov5-panet+spd+width=0.25+gamma=0.75")
    assert definition.name == "cspdarknet53+yolov5-panet+spd+width=0.25+gamma=0.75"
    assert (row(definition, "detect").module, words(definition, "head")["coding"]) == ("AnchorDetect", "yolov5")
    assert {section.scale for section in definition.sections} == {Scale(width=0.25)}
    for section in definition.sections:
        assert (section.defaults["downsample"], section.defaults["gamma"]) == ("spd", 0.75)


def test_a_neck_brings_its_head_in_yaml_too(tmp_path: Path) -> None:
    two = find_definition(str(write_model(tmp_path, "name: m\nbackbone: csppeleenet\nneck: {part: prn}\n")))
    assert row(two, "detect").inputs == ("p4", "p5")
    classifier = find_definition(str(write_model(tmp_path, "name: m\nbackbone: peleenet\n")))
    assert classifier.rows[-1].module == "Classify"
    assert find_definition("resnet50-darknet").rows[-1].args == {"average_last": True}


def test_a_head_by_name() -> None:
    definition = find_definition("cspdarknet53+yolov5-panet+yolov3")
    assert words(definition, "head")["coding"] == "yolov3"
    assert find_definition("cspdarknet53+yolov3+yolov5-panet").sections == definition.sections
    assert words(find_definition("yolov3-tiny+coding=yolov5"), "head")["coding"] == "yolov5"


def test_words_on_a_shipped_model() -> None:
    """The words that make yolov5n-spd of yolov5n, and the same of a file."""
    named, shipped = find_definition("yolov5n+spd"), find_definition("yolov5n-spd")
    of_file = find_definition(f"{YOLOV5}:yolov5n+downsample=spd")
    backbone, neck = shipped.sections[:2]
    for found in (named, of_file):
        assert found.rows == shipped.rows
        assert words(found, "backbone") == backbone.defaults
        assert words(found, "neck") == neck.defaults


def test_short_words() -> None:
    for short, long in [("spd", "downsample=spd"), ("csp", "fusion=csp"), ("bdsc", "conv=bdsc")]:
        found, expected = find_definition(f"resnet18+{short}"), find_definition(f"resnet18+{long}")
        assert found.sections == expected.sections
        assert found.sections != find_definition("resnet18").sections


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", Convolutions("standard")),
        ("resnet18+bdsc", Convolutions("bdsc", 1)),
        ("yolov5n-spd+bdsc+p=2", Convolutions("bdsc", 2)),
        ("csppeleenet-efm+p=0.5+bdsc", Convolutions("bdsc", 0.5)),
        ("cspdarknet53+efm+conv=bdsc-float+p=2+width=0.25", Convolutions("bdsc-float", 2)),
        ("resnet18+conv=depthwise", Convolutions("depthwise")),
        ("resnet18+bdsc+p_of=input", Convolutions("bdsc", 1, "input")),
        ("yolov5n-spd+conv_norm=false+p=2+bdsc", Convolutions("bdsc", 2, norm=False)),
    ],
)
def test_convolutions_by_name(name: str, expected: Convolutions) -> None:
    assert {section.conv for section in find_definition(name).sections} == {expected}


def test_convolutions_of_parts(tmp_path: Path) -> None:
    """A part's, overruled by the model's, overruled by the reference's, overruled by the name's; a variant's instead of
    its file's."""
    part = YOLOV5.parents[1] / "backbones" / "peleenet.yaml"
    text = part.read_text(encoding="utf-8") + "conv: {kind: bdsc, p: 2}\n"
    text = text.replace("csppeleenet: {defaults", "csppeleenet: {conv: depthwise, defaults")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")

    def found(model: str, words: str = "") -> tuple[Convolutions, ...]:
        path = write_model(tmp_path, f"name: m\nneck: yolov5-panet\n{model}\n")
        return tuple(section.conv for section in find_definition(f"{path}{words}").sections)

    own, plain = Convolutions("bdsc", 2), Convolutions("standard")
    assert found("backbone: mine.yaml") == (own, plain, plain)
    assert found("backbone: mine.yaml:csppeleenet") == (Convolutions("depthwise"), plain, plain)
    assert found("backbone: mine.yaml", "+p=3") == (Convolutions("bdsc", 3), plain, plain)
    assert found("backbone: mine.yaml\nconv: standard") == (plain,) * 3
    of_reference = "backbone: {part: mine.yaml, conv: bdsc}\nconv: bdsc-float"
    assert found(of_reference) == (Convolutions("bdsc"), *[Convolutions("bdsc-float")] * 2)
    assert found(of_reference, "+conv=standard") == (plain,) * 3
    override = "backbone: {part: mine.yaml, override: {c4: {conv: standard}}}"
    assert found(override) == (own, plain, plain)
    path = write_model(tmp_path, f"name: m\nneck: yolov5-panet\n{override}\n")
    assert [r.name for r in find_definition(str(path)).rows if r.conv == plain] == ["c4"]


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "yolov5n-sdp",
            r"^model 'yolov5n-sdp' is neither a \.yaml file nor a shipped model or backbone; "
            r"did you mean 'yolov5n-spd'\?$",
        ),
        ("", r"^model '' is neither"),
        ("+spd", r"^model '' is neither"),
        ("none.yaml", r"^none\.yaml: cannot be read: No such file or directory$"),
        ("none.yaml:x", r"^none\.yaml: cannot be read: No such file or directory$"),
        (f"{YOLOV5}:yolov5n-sdp", r"yolov5\.yaml: has no model 'yolov5n-sdp'; did you mean 'yolov5n-spd'\?$"),
        (f"{YOLOV5}:", r"yolov5\.yaml: has no model ''; allowed: "),
        (
            "peleenet+yolov5-pan",
            r"^model 'peleenet\+yolov5-pan': unknown neck, head or option 'yolov5-pan'; did you mean ",
        ),
        ("peleenet+", r"^model 'peleenet\+': unknown neck, head or option ''"),
        (
            "peleenet+width=0",
            r"^model 'peleenet\+width=0': scale\.width: must be a number above 0 and below 1000, found 0$",
        ),
        (
            "peleenet+kernel_size=3",
            r"^model 'peleenet\+kernel_size=3': unknown option 'kernel_size'; allowed: activation, ",
        ),
        ("peleenet+gama=0.25", r"unknown option 'gama'; did you mean 'gamma'\?$"),
        ("peleenet+=5", r"^model 'peleenet\+=5': '=5' has no keyword in front of its value$"),
        ("peleenet+prn+efm", r"^model 'peleenet\+prn\+efm': 'efm' sets neck a second time$"),
        ("yolov5n+width=0.5+width=2", r"'width=2' sets width a second time$"),
        ("yolov5n+spd+downsample=stride", r"'downsample=stride' sets downsample a second time$"),
        (
            "peleenet+yolov3",
            r"yolov3\.yaml: head\.detect: from: unknown layer 'p3'; allowed: c2, c3, c4, c5$",
        ),
        ("peleenet+width=big", r"scale\.width: must be a number above 0 and below 1000, found 'big'$"),
        ("yolov5n+csp", r"^model 'yolov5n\+csp': unknown option 'fusion'; "),
        ("peleenet+csp+fusion=last", r"'fusion=last' sets fusion a second time$"),
        ("peleenet+bdsc+conv=depthwise", r"'conv=depthwise' sets conv a second time$"),
        ("peleenet+bdcs", r"unknown neck, head or option 'bdcs'; did you mean 'bdsc'\?$"),
        ("peleenet+conv=bdcs", r"^model 'peleenet\+conv=bdcs': conv.kind: 'bdcs' is not allowed; did you mean 'bdsc'"),
        (
            "peleenet+p=3",
            r"^model 'peleenet\+p=3': conv\.p: belongs to the kinds bdsc and bdsc-float, which no section has$",
        ),
        ("peleenet+conv=depthwise+p=3", r"conv\.p: belongs to the kinds bdsc and bdsc-float, found depthwise$"),
        (
            "peleenet+p_of=input",
            r"^model '.*': conv\.p_of: belongs to the kinds bdsc and bdsc-float, which no section has$",
        ),
        (
            "peleenet+conv_norm=false",
            r"^model '.*': conv\.norm: belongs to the kinds bdsc and bdsc-float, which no section has$",
        ),
        ("peleenet+conv=depthwise+conv_norm=true", r"conv\.norm: belongs to the kinds .*, found depthwise$"),
        ("peleenet+bdsc+p_of=inputs", r"conv\.p_of: 'inputs' is not allowed; did you mean 'input'\?$"),
        ("peleenet+bdsc+conv_norm=0", r"conv\.norm: must be true or false, found 0$"),
        ("peleenet+bdsc+p_of", r"unknown neck, head or option 'p_of'; did you mean 'p_of='\?$"),
        ("peleenet+bdsc+p=0", r"conv\.p: must be a number above 0 and below 1000, found 0$"),
    ],
)
def test_unknown_models(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_definition(name)


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("", r"has no model 'v'; allowed: tiny$"),
        ("variants: [v]", r"variants: must be a mapping, found a list$"),
        ("variants: {w: {}}", r"has no model 'v'; allowed: tiny, w$"),
        ("variants: {v: spd}", r"variants\.v: must be a mapping, found text$"),
        ("variants: {v: {default: {}}}", r"variants\.v\.default: unknown key; did you mean 'defaults'\?$"),
        ("variants: {v: {defaults: spd}}", r"variants\.v\.defaults: must be a mapping, found text$"),
        ("variants: {v: {scale: q}}", r"scale: unknown 'q'"),
    ],
)
def test_wrong_variants(tmp_path: Path, variants: str, message: str) -> None:
    path = write_model(tmp_path, f"{TINY}{variants}\n")
    with pytest.raises(InputError, match=message):
        find_definition(f"{path}:v")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backbone: peleent", r"model\.yaml: backbone: unknown part 'peleent'; did you mean 'peleenet'\?$"),
        (
            "backbone: {part: [peleenet]}",
            r"backbone\.part: must be the name of a part, or a list of rows, found \['peleenet'\]$",
        ),
        ("backbone: peleenet\nconv: bdcs", r"^[^:]*model\.yaml: conv: 'bdcs' is not allowed; did you mean"),
        ("backbone: {part: peleenet, conv: bdcs}", r"^[^:]*model\.yaml: backbone\.conv: 'bdcs' is not allowed; "),
        ("backbone: 5", r"backbone: must be the name of a part, or a list of rows, found 5$"),
        (
            "backbone: {part: peleenet, scale: {widht: 2}}",
            r"model\.yaml: backbone\.scale\.widht: unknown key; did you mean 'width'\?$",
        ),
        ("backbone: peleenet\nvariants: {m: {}}", r"variants: 'm' is the name of the file's own model$"),
        ("backbone: {part: 3}", r"backbone\.part: must be the name of a part, or a list of rows, found 3$"),
        ("backbone: none.yaml", r"none\.yaml: cannot be read: No such file or directory$"),
        ("backbone: {scale: {}}", r"backbone: must have either a part or rows$"),
        ("backbone: {part: peleenet, widht: 1}", r"backbone\.widht: unknown key; "),
        ("backbone: {part: peleenet, scale: s}", r"backbone\.scale: unknown 's'; nothing is allowed here$"),
        ("backbone: {part: peleenet, override: 3}", r"backbone\.override: must be a mapping, found 3$"),
        (
            "backbone: {part: peleenet, override: {c9: {}}}",
            r"backbone: override: unknown row 'c9'; allowed: c2, c3, c4, c5, down3, ",
        ),
        (
            "backbone: {part: peleenet, override: {c3: {repeat: 2}}}",
            r"backbone\.override\.c3\.repeat: unknown key; did you mean 'repeats'\?$",
        ),
        ("backbone: part.yaml", r"part\.yaml: rows\.a\.modul: unknown key; did you mean 'module'\?$"),
        ("neck: yolov5-panet", r"yolov5-panet\.yaml: neck\.spp: from: unknown layer 'c5'; "),
    ],
)
def test_wrong_parts(tmp_path: Path, text: str, message: str) -> None:
    part = "name: p\nrows: [{name: a, module: Conv, modul: Conv}]\n"
    (tmp_path / "part.yaml").write_text(part, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        find_definition(str(write_model(tmp_path, f"name: m\n{text}\n")))


def test_words_of_a_head_without_anchors() -> None:
    """A variant is a word for several; each of them is one as well."""
    words = "coding=distances+objectness=false+bins=16"
    whole, parts = (find_definition(f"yolov5n-spd+{name}") for name in ("task-aligned", f"anchor-free+{words}"))
    assert whole.sections[-1] == parts.sections[-1]
    with torch.device("meta"):
        head = build_model(find_definition("yolov5n-spd+task-aligned+p2+bins=8"), 3).head
    assert (head.reductions, head.bins, head.has_objectness) == ((4, 8, 16, 32), 8, False)
    with pytest.raises(InputError, match=r"bins: must be from 2 to 64 and belong to distances, found 8 with exp"):
        build_model(find_definition("yolov5n+anchor-free+bins=8"), 3)


# ---------------------------------------------------------------------------------------- documentation


def test_the_finer_level_of_the_manual(tmp_path: Path) -> None:
    """CONTRIBUTING.md's example, typed as it says."""
    manual = (CONFIGS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    finer, model = re.findall(r"```yaml\n(.*?)```", manual.partition("For example, a level of 4 px")[2], re.DOTALL)[:2]
    neck = (CONFIGS / "necks" / "yolov5-panet.yaml").read_text(encoding="utf-8").partition("finer:\n")[0] + finer
    (tmp_path / "my-neck.yaml").write_text(neck, encoding="utf-8")
    built = build_model(find_definition(str(write_model(tmp_path, model))), 3)
    assert built.head.reductions == (4, 8, 16, 32)
    assert [row(built.definition, name).inputs for name in ("p3", "down_p3")] == [("cat3",), ("p3",)]
    norms = {(layer.eps, layer.momentum) for layer in built.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert norms == {(0.001, 0.03)}
