"""Base class of typed sections of YAML files.

A section is a frozen dataclass: type, unit, limits, default and meaning are beside each field, rules among several
fields in ``contradictions`` of the class that owns them. pydantic validates a mapping against it, because it reports
all errors at once, each with its location and kind; msgspec, which imports faster, stops at the first. The package
constructs sections without validation; pydantic builds a validator only when a file is read.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from annotated_types import Interval
from pydantic import BeforeValidator, ConfigDict, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic import Strict as Strictness
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from detect.config.yaml_files import kind_of
from detect.errors import InputError, did_you_mean

Schema = TypeVar("Schema")
Section = TypeVar("Section", bound="Strict")


@dataclass(frozen=True)
class Unit:
    """Unit of a field, for ``detect.config.describe``."""

    name: str


@dataclass(frozen=True)
class Wanted:
    """The message for any invalid value of a field; the value is appended."""

    text: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(
            handler(source), custom_error_type="wanted", custom_error_message=self.text
        )


Item = TypeVar("Item")
Share = Annotated[float, Interval(ge=0, le=1)]
Listed = Annotated[tuple[Item, ...], Strictness(False)]
"""List in the YAML, tuple in the class."""
Named = dict[Annotated[str, BeforeValidator(str)], Item]
"""Mapping with free keys; numeric keys are converted to text."""


class Strict:
    """Base class of a section's dataclass: unknown keys and wrong types are errors; only int to float is converted."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def expand(cls, value: Any) -> Any:
        """Return the mapping that a short form stands for, and any other value as it is."""
        return value

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield the errors among several fields: the key, or "" for the section, and the message."""
        yield from ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: Any = handler.resolve_ref_schema(handler(source))
        schema["strict"] = False  # a mapping is accepted
        reference = schema.pop("ref")  # of the whole, because pydantic refers to it where another field has the class
        schema = core_schema.no_info_before_validator_function(cls.expand, schema)
        return core_schema.no_info_after_validator_function(_checked, schema, ref=reference)


def refuse(contradictions: Iterable[tuple[str, str]]) -> None:
    """Make errors of a section, as ``Strict.contradictions`` yields them, errors of its validation."""
    if found := list(contradictions):
        raise PydanticCustomError("contradictions", "contradictions", {"found": found})


def _checked(section: Section) -> Section:
    refuse(section.contradictions())
    return section


def build(schema: type[Schema], content: dict[str, Any], where: str, section: str = "") -> Schema:
    """Validate a mapping and return it as a dataclass.

    ``where`` is its origin in messages, usually the file; ``section`` the key that holds it, empty for the whole file.

    Raises:
        InputError: unknown or missing keys, wrong types, values outside their limits, contradictions; all in one line.
    """
    try:
        config: Schema = _validator(cast("Any", schema)).validate_python(content)  # mypy: a class is hashable
    except ValidationError as error:
        mistakes = [_Mistake.of(details, content) for details in error.errors(include_url=False)]
        ordered = sorted(mistakes, key=lambda mistake: mistake.order)
        messages = [message for mistake in ordered for message in mistake.messages(schema, section)]
        raise InputError(f"{where}: {'; '.join(messages)}") from None
    return config


@functools.cache
def _validator(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


@dataclass(frozen=True)
class _Mistake:
    """An error of pydantic: its keys, list indices or names of listed items, and their positions in the file."""

    order: tuple[int, ...]
    path: tuple[str | int, ...]
    details: ErrorDetails

    @classmethod
    def of(cls, details: ErrorDetails, content: Any) -> _Mistake:
        """Locate an error in the content; pydantic's names of union members are left out of the path."""
        steps: list[tuple[int, str | int]] = []
        for key in details["loc"]:
            if isinstance(content, dict) and key in content:
                steps.append((list(content).index(key), str(key)))
                content = content[key]
            elif isinstance(content, dict) and details["type"] == "missing" and key == details["loc"][-1]:
                steps.append((len(content), key))  # behind the keys that are there
            elif isinstance(content, list) and isinstance(key, int):
                content = content[key]
                name = content.get("name") if isinstance(content, dict) else None
                steps.append((key, name if isinstance(name, str) and name.isidentifier() else key))
        return cls(tuple(position for position, _ in steps), tuple(label for _, label in steps), details)

    def messages(self, schema: Any, section: str) -> list[str]:
        """Return one message, or one for each contradiction; ``section`` is the key that holds the content."""
        path = (section, *self.path) if section else self.path
        if self.details["type"] != "contradictions":
            return [f"{_label(path) or 'the file'}: {self._message(schema)}"]
        found = self.details["ctx"]["found"]
        return [f"{_label((*path, *([key] if key else [])))}: {text}".removeprefix(": ") for key, text in found]

    def _message(self, schema: Any) -> str:
        kind, found, context = self.details["type"], self.details["input"], self.details.get("ctx", {})
        if kind == "missing":
            return "is missing"
        if kind in ("unexpected_keyword_argument", "invalid_key"):
            return f"unknown key{did_you_mean(str(self.path[-1]), _keys_at(schema, self.details['loc'][:-1]))}"
        if kind == "literal_error":
            allowed = re.findall("'([^']*)'", context["expected"])
            hint = did_you_mean(found, allowed) if isinstance(found, str) else f"; allowed: {', '.join(allowed)}"
            return f"{found!r} is not allowed{hint}"
        for limit, relation in _LIMITS.items():
            if limit in context:
                return f"{found} is {relation} {_plain_number(context[limit])}"
        if kind in _SHAPES:
            return f"must be {_SHAPES[kind]}, found {kind_of(found)}"
        hint = " (write null for nothing)" if found == "None" else ""
        return f"{_WANTED.get(kind, self.details['msg'])}, found {found!r}{hint}"


_LIMITS = {"ge": "below", "le": "above", "gt": "not above", "lt": "not below"}
_SHAPES = {"tuple_type": "a list", "dict_type": "a mapping", "dataclass_type": "a mapping"}
_WANTED = {
    "int_type": "must be a whole number",
    "float_type": "must be a finite number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
}


def _plain_number(value: float) -> str:
    """Return a limit without ``.0``, which pydantic adds in fields for floats."""
    return str(int(value) if value == int(value) else value)


def _label(path: Sequence[str | int]) -> str:
    """Return ``a.b[0].c``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def _keys_at(schema: Any, location: Sequence[str | int]) -> list[str]:
    depth = 0  # lists and mappings with free keys between a field and its section
    for key in location:
        if depth:
            depth -= 1
        elif key in keys_of(schema):  # otherwise pydantic's name of a union's member
            schema, depth = section_of(keys_of(schema)[str(key)])
    return list(keys_of(schema))


def keys_of(section: Any) -> dict[str, Any]:
    """Return the YAML keys of a section with their annotated types; a Python keyword has an alias."""
    hints = get_type_hints(section, include_extras=True)
    return {_alias(hints[f.name]) or f.name: hints[f.name] for f in dataclasses.fields(section)}


def _alias(hint: Any) -> str | None:
    return next((one.alias for one in getattr(hint, "__metadata__", ()) if isinstance(one, FieldInfo)), None)


def section_of(hint: Any) -> tuple[Any, int]:
    """Return the section class in a field's type, or None, and the number of lists and mappings around it."""
    origin, args = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return hint, 0
    if origin in (Union, types.UnionType):
        return next((found for arg in args if (found := section_of(arg))[0]), (None, 0))
    if origin in (tuple, dict):
        section, depth = section_of(args[origin is dict])
        return section, depth + 1
    return section_of(args[0]) if origin is Annotated else (None, 0)


def to_plain(config: Any) -> Any:
    """Return a config dataclass as dicts, lists and scalars for YAML, JSON or a checkpoint."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {key: to_plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_plain(value) for value in config]
    return config
