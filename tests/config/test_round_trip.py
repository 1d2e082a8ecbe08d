"""Property: whatever a schema can hold survives to plain types, to YAML text and back."""

from __future__ import annotations

import dataclasses
import math
import types
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from annotated_types import Ge, Interval
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from detect.config.base import build, to_plain
from detect.config.data import DataConfig
from detect.config.recipe import DetectionRecipe
from detect.config.run import RunConfig
from detect.config.yaml_files import dump_yaml, load_yaml

# YAML 1.1 reads some control characters, such as U+0085, as ends of lines, and PyYAML writes them as they are.
WORDS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=8)
NUMBERS: dict[type, Any] = {int: st.integers, float: partial(st.floats, allow_nan=False, allow_infinity=False)}
SCALARS = {
    bool: st.booleans(),
    str: WORDS,
    int: NUMBERS[int](),
    float: NUMBERS[float](),
    Any: st.none() | st.integers() | WORDS,
}


def values(hint: Any) -> st.SearchStrategy:
    """What a field of this type may hold."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = next((one for one in args[1:] if isinstance(one, (Interval, Ge))), None)
        return values(args[0]) if limits is None else NUMBERS[args[0]](limits.ge, getattr(limits, "le", None))
    if origin in (Union, types.UnionType):
        return st.one_of(*map(values, args))
    if hint is type(None):
        return st.none()
    if dataclasses.is_dataclass(hint):
        return configs(hint)
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple:
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(WORDS, values(args[1]), max_size=3)
    return SCALARS[hint]


def configs(schema: Any) -> st.SearchStrategy:
    """Any instance of a schema that keeps its limits and does not contradict itself."""
    hints = get_type_hints(schema, include_extras=True)
    drawn = {f.name: values(hints[f.name]) for f in dataclasses.fields(schema)}
    if schema is DetectionRecipe:
        drawn["image_size"] = st.integers(1, 100).map(lambda cells: 32 * cells)
    return st.builds(schema, **drawn).filter(lambda config: not list(config.contradictions()))


@pytest.mark.parametrize("schema", [DataConfig, RunConfig, DetectionRecipe])
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_plain_and_back(schema: Any, data: st.DataObject) -> None:
    config = data.draw(configs(schema))
    assert build(schema, to_plain(config), "here") == config


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@example(config=DetectionRecipe(freeze=("1e100",)))
@given(config=configs(DetectionRecipe))
def test_yaml_and_back(tmp_path_factory: pytest.TempPathFactory, config: DetectionRecipe) -> None:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(dump_yaml(to_plain(config)), encoding="utf-8")
    assert build(DetectionRecipe, load_yaml(path), "here") == config


@settings(max_examples=50)
@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_as_python_writes_them(tmp_path_factory: pytest.TempPathFactory, number: float) -> None:
    """``repr`` of a float is how JSON and people write it: 1e-05, 1e+16, 0.1."""
    path: Path = tmp_path_factory.mktemp("number") / "a.yaml"
    path.write_text(f"a: {number!r}", encoding="utf-8")
    found = load_yaml(path)["a"]
    assert isinstance(found, float)
    assert found == number
    assert math.copysign(1, found) == math.copysign(1, number)
