"""Every key of every YAML: type, unit, limits, default, meaning and source, read from the classes of the sections."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Interval, Le, Lt

from detect.config.ablation import AblationConfig
from detect.config.base import Unit, keys_of, section_of, to_plain
from detect.config.data import DataConfig
from detect.config.model import Convolutions, ModelConfig, Norm, PartConfig, RowConfig, Scale, SectionConfig
from detect.config.recipe import ClassificationRecipe, DetectionRecipe
from detect.config.run import RunConfig
from detect.config.sweep import SweepConfig
from detect.errors import InputError, did_you_mean

KINDS: dict[str, type] = {
    "recipe/detection": DetectionRecipe,
    "recipe/classification": ClassificationRecipe,
    "data": DataConfig,
    "model": ModelConfig,
    "model/part": PartConfig,
    "model/section": SectionConfig,
    "model/row": RowConfig,
    "model/scale": Scale,
    "model/norm": Norm,
    "model/conv": Convolutions,
    "run": RunConfig,
    "sweep": SweepConfig,
    "ablation": AblationConfig,
}
"""Root class of each kind of YAML, or of a part with keys of its own."""

_WORDS: dict[Any, str] = {int: "whole number", float: "number", bool: "true or false", str: "text", Any: "anything"}
_SOURCE = re.compile(r"Source: (.+?)(?:\n\n|$)", re.DOTALL)


@dataclass(frozen=True)
class KeyDescription:
    """A key of a YAML.

    Args:
        key: dotted, with ``NAME`` for a free key and ``[]`` for the items of a list.
        kind: one of ``KINDS``.
        type: in words.
        unit: ``px``, ``epochs``, ...; empty for none.
        default: as in a YAML; empty for a required key and a section.
        required: True if there is no default.
        limits: range or choices in words; empty for none.
        meaning: one or more sentences.
        source: paper of the section; empty for none.
    """

    key: str
    kind: str
    type: str
    unit: str
    default: str
    required: bool
    limits: str
    meaning: str
    source: str


@functools.cache
def describe_keys() -> list[KeyDescription]:
    """Return every key of every kind of YAML, each section before its keys."""
    return [key for kind, root in KINDS.items() for key in _describe(root, kind, "")]


def explain_key(key: str) -> list[KeyDescription]:
    """Return a key, dotted (``optimizer.lr``) or its end (``lr``), in every kind of YAML that has it.

    Raises:
        InputError: no kind of YAML has it.
    """
    keys = describe_keys()
    found = [one for one in keys if one.key == key] or [one for one in keys if one.key.endswith(f".{key}")]
    if not found:
        known = dict.fromkeys(one.key for one in keys)
        last_words = dict.fromkeys(name.rpartition(".")[2] for name in known)
        raise InputError(f"{key}: unknown key{_suggestion(key, list(known), list(last_words))}")
    return found


def _suggestion(key: str, known: list[str], last_words: list[str]) -> str:
    hints = [did_you_mean(key, words) for words in ((known, last_words) if "." in key else (last_words, known))]
    return next((hint for hint in hints if "did you mean" in hint), "; without a key all are listed")


def _describe(section: Any, kind: str, prefix: str) -> Iterator[KeyDescription]:
    for f, (name, hint) in zip(dataclasses.fields(section), keys_of(section).items(), strict=True):
        inner, _ = section_of(hint)
        key, metadata = f"{prefix}{name}", _metadata(hint)
        default, required = _default_of(f)
        yield KeyDescription(
            key=key,
            kind=kind,
            type=_type_text(hint),
            unit=next((one.name for one in metadata if isinstance(one, Unit)), ""),
            default="" if required or dataclasses.is_dataclass(default) else _yaml_text(default),
            required=required,
            limits="; ".join(filter(None, (_limits_text(metadata), _choices_text(hint)))),
            meaning=_meaning(section, f.name) or (_summary(inner) if inner else ""),
            source=_source(section),
        )
        if inner is not None and inner not in KINDS.values():
            yield from _describe(inner, kind, f"{key}{_steps(hint)}.")


def _default_of(f: dataclasses.Field[Any]) -> tuple[Any, bool]:
    """Return the default, and whether the field is required."""
    if f.default is not dataclasses.MISSING:
        return f.default, False
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory(), False
    return None, True


def _yaml_text(value: Any) -> str:
    value = to_plain(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml_text, value))}]"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _metadata(hint: Any) -> list[Any]:
    """Collect the ``Annotated`` metadata of a type and of the types in it."""
    own = list(get_args(hint)[1:]) if get_origin(hint) is Annotated else []
    if get_origin(hint) is Literal:
        return []
    inner = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    return own + [one for arg in inner for one in _metadata(arg)]


def _limits_text(metadata: list[Any]) -> str:
    found: dict[str, Any] = {}
    for one in metadata:
        if isinstance(one, (Interval, Ge, Gt, Le, Lt)):
            found |= {
                name: value for name in ("ge", "gt", "le", "lt") if (value := getattr(one, name, None)) is not None
            }
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    largest = {2**63 - 1: "2^63 - 1"}
    return ", ".join(f"{words[name]} {largest.get(value, value)}" for name, value in found.items())


def _choices_text(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return ", ".join(map(str, get_args(hint)))
    return "; ".join(filter(None, map(_choices_text, get_args(hint))))


def _type_text(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type_text(args[0])
    if origin in (Union, types.UnionType):
        return " or ".join("nothing" if arg is type(None) else _type_text(arg) for arg in args)
    if origin is Literal:
        return "word"
    if origin is tuple:
        return f"list of {_type_text(args[0])}"
    if origin is dict:
        return f"mapping of {_type_text(args[1])}"
    return "section" if dataclasses.is_dataclass(hint) else _WORDS[hint]


def _steps(hint: Any) -> str:
    """Return the path from a field to the keys of the section in it: ``[]`` or ``.NAME``."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple and section_of(hint)[0]:
        return "[]" + _steps(args[0])
    if origin is dict:
        return ".NAME" + _steps(args[1])
    return "".join(map(_steps, args)) if origin is not Literal else ""


def _meaning(section: type, name: str) -> str:
    """Return the docstring below a field, in the class or its nearest base."""
    for one in section.__mro__:
        if text := _texts_of(one.__module__).get(f"{one.__name__}.{name}"):
            return text
    return ""


@functools.cache
def _texts_of(module: str) -> dict[str, str]:
    """Map ``Class.field`` to the docstring below it, on one line, for the classes of a module."""
    if not module.startswith("detect."):
        return {}
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {
        f"{node.name}.{field.target.id}": " ".join(text.value.value.split())
        for node in classes
        for field, text in zip(node.body, node.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def _summary(section: type) -> str:
    return " ".join(inspect.cleandoc(section.__doc__ or "").split("\n\n")[0].split())


def _source(section: type) -> str:
    found = _SOURCE.search(inspect.cleandoc(section.__doc__ or ""))
    return " ".join(found[1].split()) if found else ""
