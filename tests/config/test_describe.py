"""What ``detect.config.describe`` says of a key is what the loader does with it."""

from __future__ import annotations

import pytest
import yaml

from detect.config.base import build, to_plain
from detect.config.describe import KINDS, KeyDescription, describe_keys, explain_key
from detect.errors import InputError


def find(key: str, kind: str = "recipe/detection") -> KeyDescription:
    (found,) = [one for one in describe_keys() if (one.key, one.kind) == (key, kind)]
    return found


def test_a_number() -> None:
    assert find("augment.degrees") == KeyDescription(
        key="augment.degrees",
        kind="recipe/detection",
        type="number",
        unit="degrees",
        default="0.0",
        required=False,
        limits="at least 0, at most 180",
        meaning="Rotation, uniform in +-degrees.",
        source="",
    )


@pytest.mark.parametrize(
    ("key", "kind", "field", "expected"),
    [
        ("name", "data", "required", True),
        ("name", "data", "default", ""),
        ("names", "data", "type", "list of text or nothing"),
        ("names", "data", "default", "null"),
        ("splits", "data", "type", "mapping of section"),
        ("splits.NAME.images", "data", "required", True),
        ("range", "data", "type", "list of number or section or word or nothing"),
        ("range.percentiles", "data", "default", "[0.01, 99.99]"),
        ("range.percentiles", "data", "limits", "at least 0, at most 100"),
        ("space.NAME.log", "sweep", "default", "false"),
        ("set", "run", "type", "mapping of anything"),
        ("cache", "recipe/detection", "limits", "none, ram, disk"),
        ("optimizer", "recipe/detection", "type", "section"),
        ("optimizer", "recipe/detection", "default", ""),
        ("optimizer", "recipe/detection", "meaning", "Optimiser and learning-rate schedule."),
        ("sdpoint.ratios", "recipe/classification", "source", "SDPoint (Kuen et al., 2018), section 3."),
        ("trd.guard", "recipe/detection", "unit", "epochs"),
        ("augment.albumentations[].p", "recipe/detection", "default", "0.5"),
        ("evaluation.save_best", "recipe/classification", "limits", "top1, top5"),
        ("variants.NAME.override.NAME.reduction", "model/part", "unit", "px"),
        ("backbone", "model", "type", "section or nothing"),
        ("evaluation.patience", "recipe/classification", "unit", "epochs"),
    ],
)
def test_fields(key: str, kind: str, field: str, expected: object) -> None:
    assert getattr(find(key, kind), field) == expected


def test_every_key_has_a_meaning() -> None:
    assert [f"{one.kind}: {one.key}" for one in describe_keys() if not one.meaning.strip()] == []


def test_recipes_are_described_completely() -> None:
    """Every key of a recipe as it is written into a checkpoint, and its default."""

    def leaves(content: dict[str, object], prefix: str = "") -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in content.items():
            found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        return found

    for kind in ("recipe/detection", "recipe/classification"):
        defaults = leaves(to_plain(build(KINDS[kind], {}, "here")))
        told = {one.key: yaml.safe_load(one.default) for one in describe_keys() if one.kind == kind and one.default}
        assert {key: told[key] for key in defaults} == defaults


def test_explain_key() -> None:
    assert [one.kind for one in explain_key("optimizer.lr")] == ["recipe/detection", "recipe/classification"]
    assert [one.key for one in explain_key("lr")] == ["optimizer.lr"] * 2  # the last word is enough
    assert {one.key for one in explain_key("mixup")} == {"augment.mixup"}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("optimizer.momentun", "optimizer.momentun: unknown key; did you mean 'optimizer.momentum'?"),
        ("momentun", "momentun: unknown key; did you mean 'momentum'?"),
        ("qqq", "qqq: unknown key; without a key all are listed"),
    ],
)
def test_explain_unknown_key(key: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        explain_key(key)
    assert str(caught.value) == said
