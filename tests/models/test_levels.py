"""Levels of a detector: finer ones by the rule of the neck's others, and fewer of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detect.errors import InputError
from detect.losses.detection import default_balance
from detect.models.build import build_model
from detect.models.catalog import find_definition, shipped_parts
from detect.models.definition import ModelDefinition, Row
from detect.models.levels import inherit_anchors, rename_weights
from detect.models.model import DetectionModel
from tests.models.test_combinations import NECK_OF_EACH_FILE, assert_runs
from tests.models.yamls import write_model

PARAMETERS = {
    "cem": (555188, 534207),
    "cem-sam": (559540, 537471),
    "efm": (619412, 617471),
    "efm-sam": (629236, 627007),
    "efm-spp": (625620, 623679),
    "fpn": (1807124, 1790239),
    "fpn-spp": (1872916, 1856031),
    "fpn-tiny": (656116, 636362),
    "gfm": (595316, 590879),
    "panet": (2880756, 2812383),
    "panet-spp": (2946548, 2878175),
    "prn": (573332, 551210),
    "prn-3l": (573332, 562271),
    "yolov5-panet": (1982356, 1914015),
    "yolox-panet": (2506364, 2288117),
}
"""With p2 and with the neck's own levels: resnet10, space-to-depth, a quarter of the width, two classes."""


def neck_rows(name: str) -> dict[str, Row]:
    section = next(section for section in find_definition(name).sections if section.name == "neck")
    return {row.name: row for row in section.rows}


def level_rows(rows: dict[str, Row], level: int) -> dict[str, Row]:
    """The rows whose name ends with the level's number."""
    return {name: row for name, row in rows.items() if name.endswith(str(level))}


def lowered(row: Row, divisor: int) -> Row:
    """The row one level finer: numbers in names less one, half the cells' size, channels by ``divisor``."""

    def name(text: str) -> str:
        return re.sub(r"\d", lambda digit: str(int(digit[0]) - 1), text)

    args = {key: value // divisor if key == "out_channels" else value for key, value in row.args.items()}
    reduction = row.reduction and row.reduction // 2
    return replace(row, name=name(row.name), inputs=tuple(map(name, row.inputs)), args=args, reduction=reduction)


def tiny(name: str) -> DetectionModel:
    torch.manual_seed(0)
    return build_model(name, 2).eval()


# ------------------------------------------------------------------------------------------- finer levels


@pytest.mark.parametrize("neck", ["fpn", "panet", "yolov5-panet", "yolox-panet"])
def test_a_finer_level_is_made_as_the_others(neck: str) -> None:
    """With p2, level 3 is what level 4 is, and level 2 what level 3 was: half the channels, one name lower."""
    own, fine = neck_rows(f"resnet18+{neck}"), neck_rows(f"resnet18+{neck}+p2")
    assert level_rows(fine, 5) == level_rows(own, 5)
    assert level_rows(fine, 4) == level_rows(own, 4)
    for level, rows in ((3, level_rows(own, 4)), (2, level_rows(own, 3))):
        expected = [lowered(row, 2) for row in rows.values()]
        assert level_rows(fine, level) == {row.name: row for row in expected}, level


def test_prn_grows_level_by_level() -> None:
    """With a third level PRN is PRN-3L; the fourth is as the third, of as many channels."""
    three, four = neck_rows("resnet18+prn+levels=p3-p5"), neck_rows("resnet18+prn+p2")
    assert three == neck_rows("resnet18+prn-3l")
    assert four == neck_rows("resnet18+prn-3l+p2")
    # lateral3 reads p4 because it is the row before; lateral2 so reads p3
    expected = [lowered(row, 1) for row in level_rows(three, 3).values()]
    assert level_rows(four, 2) == {row.name: row for row in expected}


def test_levels_of_the_fusing_necks() -> None:
    """EFM: a level is made of itself and its neighbours, of which the finest has one. CEM: of all. GFM: of one map."""
    efm, cem, gfm = (neck_rows(f"resnet18+{neck}+p2") for neck in ("efm", "cem", "gfm"))
    assert efm["cat2"].inputs == ("narrow2", "up3")
    assert efm["cat3"].inputs == ("pool2", "narrow3", "up4")
    assert [cem[f"cat{level}"].inputs for level in (2, 3, 4, 5)] == [
        ("lateral2", "up3_2", "up4_2", "up5_2"),
        ("pool2_3", "lateral3", "up4_3", "up5_3"),
        ("pool2_4", "pool3_4", "narrow4", "up5_4"),
        ("pool2_5", "pool3_5", "pool4_5", "context5"),
    ]
    assert gfm["cat4"].inputs == ("pool2_4", "pool3", "narrow4", "up5")
    assert gfm["lateral2"].inputs == gfm["lateral3"].inputs == ("fuse",)


def test_a_variant_changes_the_finer_level_too() -> None:
    assert neck_rows("resnet18+efm-sam+p2")["p2"].module == "AttendedConv"
    assert "p2" not in neck_rows("resnet18+efm-sam")


FIRST = list(NECK_OF_EACH_FILE)


@pytest.mark.parametrize(
    "neck", [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in shipped_parts("neck")]
)
def test_parameters(neck: str) -> None:
    """Every neck takes the word, and without it is what it was."""
    assert PARAMETERS.keys() == shipped_parts("neck").keys()
    with torch.device("meta"):
        models = [build_model(f"resnet10+{neck}{word}+spd+width=0.25", 2) for word in ("+p2", "")]
    assert tuple(sum(p.numel() for p in model.parameters()) for model in models) == PARAMETERS[neck]
    assert models[0].head.reductions == (4, 8, 16, 32)


@pytest.mark.parametrize(
    "neck",
    [name if name == "gfm" else pytest.param(name, marks=pytest.mark.slow) for name in [*FIRST, "efm-sam", "fpn-spp"]],
)
def test_every_neck_runs_with_p2(neck: str) -> None:
    assert_runs(f"resnet10+{neck}+p2+downsample=spd+width=0.25+depth=0.1")


# -------------------------------------------------------------------------------------------- fewer levels


def test_a_level_goes_with_what_serves_only_it() -> None:
    """Without p5, YOLOv5's neck still reads c5: lateral5 leads to the finer levels. EFM's p2 and p3 do not need it."""
    own, fewer = (neck_rows(f"yolov5n{word}") for word in ("", "+levels=p3-p4"))
    assert own.keys() - fewer.keys() == {"down_p4", "cat_p5", "p5"}
    assert all(own[name] == row for name, row in fewer.items())
    names = {row.name for row in find_definition("yolov5n+efm+levels=p2-p3").rows}
    assert not names & {"c5", "down5", "narrow5", "up5", "p4", "p5"}
    assert names >= {"c4", "lateral4", "up4"}


@pytest.mark.parametrize("levels", ["p2-p5", "p2-p4", "p2-p3", "p3-p5", "p3-p4", "p4-p5"])
def test_reductions(levels: str) -> None:
    with torch.device("meta"):
        head = build_model(f"yolov5n-spd+levels={levels}", 2).head
    first, last = int(levels[1]), int(levels[4])
    assert head.reductions == tuple(2**n for n in range(first, last + 1))


def test_anchors_of_the_levels() -> None:
    """A level keeps its own; a finer one has half of the next one's: 10 x 13 px becomes 5 x 6.5."""
    p3, p4, p5 = find_definition("yolov5n").rows[-1].args["anchors_px"]
    p2 = [[5, 6.5], [8, 15], [16.5, 11.5]]
    assert find_definition("yolov5n+p2").rows[-1].args["anchors_px"] == [p2, p3, p4, p5]
    assert find_definition("yolov5n+levels=p2-p4").rows[-1].args["anchors_px"] == [p2, p3, p4]
    # PRN's head has two: p3 has half of p4's, p2 a quarter
    anchors = find_definition("resnet18+prn+p2").rows[-1].args["anchors_px"]
    assert [level[0] for level in anchors] == [[5.75, 6.75], [11.5, 13.5], [23, 27], [81, 82]]
    assert find_definition("yolov4+p2").rows[-1].args["xy_scale"] == [1.2, 1.2, 1.1, 1.05]


@pytest.mark.parametrize(
    ("reductions", "balance"),
    [((4, 8), (4, 1)), ((8, 16, 32), (4, 1, 0.4)), ((4, 8, 16), (4, 1, 0.4)), ((4, 8, 16, 32), (4, 1, 0.4, 0.4))],
)
def test_balance_by_the_one_rule(reductions: tuple[int, ...], balance: tuple[float, ...]) -> None:
    assert default_balance(reductions) == balance


# ----------------------------------------------------------------------------------------- names and files


def test_the_key_of_a_file(tmp_path: Path) -> None:
    path = write_model(
        tmp_path, "name: mine\nbackbone: resnet10\nneck: fpn\nlevels: p2-p4\nvariants: {b: {levels: null}}\n"
    )
    assert find_definition(str(path)).rows == find_definition("resnet10+fpn+levels=p2-p4").rows
    assert find_definition(f"{path}:b").rows == find_definition("resnet10+fpn").rows


def test_a_neck_of_ones_own(tmp_path: Path) -> None:
    neck = "rows:\n  - {name: p3, module: Conv, args: {out_channels: 8}, from: c3}\n"
    finer = (
        "finer:\n  p2:\n    behind: {p3: [{name: up, module: Upsample}, "
        "{name: cat, module: Concat, from: [up, c2]}, {name: p2, module: Conv, args: {out_channels: 4}}]}\n"
    )
    (tmp_path / "neck.yaml").write_text(neck + finer)
    head = "head: [{name: detect, module: AnchorDetect, from: p3, args: {anchors_px: [[[8, 8]]]}}]\n"
    path = write_model(tmp_path, f"name: m\nbackbone: resnet10\nneck: neck.yaml\n{head}")
    assert find_definition(f"{path}+levels=p2-p3").rows[-1].args["anchors_px"] == [[[4, 4]], [[8, 8]]]
    with pytest.raises(InputError, match=r"levels: p2-p4: there is no p4; .*neck.yaml has no such row, nor one in fi"):
        find_definition(f"{path}+levels=p2-p4")
    (tmp_path / "neck.yaml").write_text(neck + finer.replace("{p3:", "{p4:"))
    with pytest.raises(InputError, match=r"neck.yaml: finer.p2: behind: unknown row 'p4'; allowed: p3"):
        find_definition(f"{path}+levels=p2-p3")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18+p2", r"levels: p2-p5 belongs to a detector, found a classifier \(resnet18\+p2\)"),
        ("yolov5n+levels=p2-p6", "model 'yolov5n.levels=p2-p6': levels: 'p2-p6' is not allowed; did you mean 'p2-p5'"),
        ("yolov5n+levels=3", "levels: 3 is not allowed; allowed: p2-p5, p2-p4, "),
        ("yolov5n+p2+levels=p3-p5", "'levels=p3-p5' sets levels a second time"),
    ],
)
def test_refuses(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_definition(name)


def test_a_head_that_reads_other_rows(tmp_path: Path) -> None:
    rows = "[{name: stem, module: Stem, args: {out_channels: 8}}]"
    head = "[{name: detect, module: AnchorDetect, args: {anchors_px: [[[8, 8]]]}}]"
    path = write_model(tmp_path, f"name: m\nbackbone: {rows}\nhead: {head}\nlevels: p2-p3\n")
    with pytest.raises(InputError, match=r"levels: p2-p3: the head must read rows named p2 to p5, found 'stem'"):
        find_definition(str(path))


# --------------------------------------------------------------------------------------------- weights


def moved(source: DetectionModel, target: DetectionModel) -> dict[str, torch.Tensor]:
    return rename_weights(source.state_dict(), source.definition, target.definition, target.state_dict())


def test_weights_of_three_levels_start_four() -> None:
    """The map of fpn3 is what p3 was; the head's level i + 1 is what i was, and its first level starts anew."""
    source, target = tiny("yolov5n+width=0.1"), tiny("yolov5n+p2+width=0.1")
    given = moved(source, target)
    assert not any(name.startswith(("graph.layers.p2.", "graph.layers.detect.predict.0")) for name in given)
    weights = {name: source.head.predict[i].weight for i, name in enumerate(("predict.1", "predict.2", "predict.3"))}
    assert all(given[f"graph.layers.detect.{name}.weight"].equal(weight) for name, weight in weights.items())
    fitting = {name: tensor for name, tensor in given.items() if tensor.shape == target.state_dict()[name].shape}
    target.load_state_dict(fitting, strict=False)
    image = torch.rand(1, 3, 64, 64)
    expected, found = (_map_of(model, row, image) for model, row in ((source, "p3"), (target, "fpn3")))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_weights_of_four_levels_start_three() -> None:
    """Without p5 every weight has its counterpart: the other levels compute what they did."""
    source, target = tiny("yolov5n+p2+width=0.1"), tiny("yolov5n+levels=p2-p4+width=0.1")
    target.load_state_dict(moved(source, target) | {"graph.layers.detect.anchors_px": target.head.anchors_px})
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for expected, found in zip(source(image)[:3], target(image), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


def _map_of(model: DetectionModel, row: str, image: torch.Tensor) -> torch.Tensor:
    found = []
    handle = model.graph.layer(row).register_forward_hook(lambda layer, inputs, output: found.append(output))
    with torch.no_grad():
        model(image)
    handle.remove()
    return found[0]


def test_anchors_are_inherited_by_level() -> None:
    own: ModelDefinition = find_definition("yolov5n+levels=p2-p4")
    given = [[[1.0, 1.0]] * 3, [[2.0, 2.0]] * 3, [[3.0, 3.0]] * 3]
    found = inherit_anchors(own, find_definition("yolov5n"), given).rows[-1].args["anchors_px"]
    assert found == [own.rows[-1].args["anchors_px"][0], given[0], given[1]]
    assert inherit_anchors(own, find_definition("yolov5n"), [[[1.0, 1.0]]] * 3) == own  # of one anchor a cell
