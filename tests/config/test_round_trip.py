"""Property: whatever a schema can hold survives to plain types, to YAML text and back."""

from __future__ import annotations

import dataclasses
import math
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detect.config.loader import build, load_yaml, to_plain
from detect.config.schema import DataConfig, DetectionRecipe, RunConfig

# YAML 1.1 reads some control characters, such as U+0085, as ends of lines, and PyYAML writes them as they are.
WORDS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=8)
SCALARS = {bool: st.booleans(), str: WORDS, Any: st.none() | st.integers() | WORDS}


def values(hint: Any, limits: tuple[float | None, float | None] = (None, None)) -> st.SearchStrategy:
    """What a field of this type and these limits may hold."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return st.none() | values(args[0])
    if dataclasses.is_dataclass(hint):
        return configs(hint)
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple:
        return st.lists(values(args[0], limits), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(WORDS, values(args[1]), max_size=3)
    if hint is int:
        return st.integers(*limits)
    if hint is float:
        return st.floats(*limits, allow_nan=False, allow_infinity=False)
    return SCALARS[hint]


def configs(schema: Any) -> st.SearchStrategy:
    """Any instance of a schema that keeps its limits."""
    hints = get_type_hints(schema)
    fields = dataclasses.fields(schema)
    return st.builds(schema, **{f.name: values(hints[f.name], f.metadata.get("limits", (None, None))) for f in fields})


@pytest.mark.parametrize("schema", [DataConfig, RunConfig, DetectionRecipe])
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_plain_and_back(schema: Any, data: st.DataObject) -> None:
    config = data.draw(configs(schema))
    assert build(schema, to_plain(config), "here") == config


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(config=configs(DetectionRecipe))
def test_yaml_and_back(tmp_path_factory: pytest.TempPathFactory, config: DetectionRecipe) -> None:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump(to_plain(config), allow_unicode=True), encoding="utf-8")
    assert build(DetectionRecipe, load_yaml(path), "here") == config


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_as_python_writes_them(tmp_path_factory: pytest.TempPathFactory, number: float) -> None:
    """``repr`` of a float is how JSON and people write it: 1e-05, 1e+16, 0.1."""
    path: Path = tmp_path_factory.mktemp("number") / "a.yaml"
    path.write_text(f"a: {number!r}", encoding="utf-8")
    found = load_yaml(path)["a"]
    assert isinstance(found, float)
    assert found == number
    assert math.copysign(1, found) == math.copysign(1, number)
