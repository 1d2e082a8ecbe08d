"""Strict YAML, and the base class of typed sections.

A file holds one mapping. ``InputError`` is raised if it is missing, unreadable, too large, not YAML, nested too deeply,
has duplicate keys, aliases or tags, or is not a mapping.

A section is a frozen dataclass: type, unit, limits, default and meaning are beside each field, rules among several
fields in ``contradictions`` of the class that owns them. pydantic validates a mapping against it, because it reports
all errors at once, each with its location and kind; msgspec, which imports faster, stops at the first. The package
constructs sections without validation; pydantic builds a validator only when a file is read.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml
from annotated_types import Interval
from pydantic import BeforeValidator, ConfigDict, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic import Strict as Strictness
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from detect.errors import InputError, did_you_mean, is_writable

Schema = TypeVar("Schema")
Section = TypeVar("Section", bound="Strict")

INSTALLED_CONFIGS = Path(__file__).parents[1] / "configs"
"""Folder of the configs inside an installed package; a checkout does not have it."""
CONFIGS = INSTALLED_CONFIGS if INSTALLED_CONFIGS.is_dir() else Path(__file__).parents[2] / "configs"
"""Folder of the shipped configs: inside an installed package, or beside it in a checkout."""

YAML_FILE = re.compile(r".+\.ya?ml(?=$|:)")
"""The file in ``FILE`` or ``FILE:VARIANT``."""
MAX_YAML_BYTES = 2**20
_MAX_CACHED = 2**14
"""Characters of a text whose content is kept; shipped files are smaller."""
MAX_DEPTH = 50
"""Nesting of mappings and lists; the parser is recursive."""
MAX_NUMBER = 100
"""Characters of a number; longer scalars are text, because converting some forms takes quadratic time."""

_TIMESTAMP, _TEXT = "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:str"


class _StrictLoader(yaml.SafeLoader):
    """``SafeLoader`` that refuses duplicate keys, aliases and tags, reads ``1e-3`` as a number, and dates as text."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()
        problems = {
            "aliases (*name) are not allowed": isinstance(event, yaml.events.AliasEvent),
            "tags (!name) are not allowed": getattr(event, "tag", None) is not None,
            f"is nested in more than {MAX_DEPTH} levels": self._depth == MAX_DEPTH,
        }
        for problem, is_there in problems.items():
            if is_there:
                raise yaml.constructor.ConstructorError(None, None, problem, event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and len(value) > MAX_NUMBER:
            return _TEXT
        return super().resolve(kind, value, implicit)

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if not is_writable(value):
            raise yaml.constructor.ConstructorError(None, None, "a lone surrogate", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a scalar", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _TextLoader(_StrictLoader):
    """``_StrictLoader`` that keeps plain scalars as text: ``yes``, ``1.10``, ``010``, ``~``."""


class _Dumper(yaml.SafeDumper):
    """``SafeDumper`` that quotes text which ``_StrictLoader`` would read as a number."""


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_TextLoader.yaml_implicit_resolvers = {}
for _side in (_StrictLoader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def dump_yaml(content: Any) -> str:
    """Return plain Python types as YAML; ``load_yaml`` reads the same values."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def dump_value(value: Any) -> str:
    """Return a value as YAML on one line, as ``--set KEY=VALUE`` takes it."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")


def load_yaml(path: Path, as_text: bool = False) -> dict[str, Any]:
    """Read a YAML file with one mapping into plain Python types; ``InputError`` for any other file.

    ``as_text`` keeps every scalar as text: numbers, truth values, ``~``.
    """
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise InputError(f"{path}: larger than {MAX_YAML_BYTES // 2**20} MiB, which no configuration is")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text") from None
    parse: Any = _parse if len(text) <= _MAX_CACHED else _parse.__wrapped__
    try:
        content = copy.deepcopy(parse(text, _TextLoader if as_text else _StrictLoader))
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: is not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: is not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping (key: value), found {_kind(content)}")
    return content


@functools.lru_cache(maxsize=64)
def _parse(text: str, loader: type[_StrictLoader]) -> Any:
    """Parse a YAML text, which takes 10 ms; models share their parts, of which 43 files are shipped."""
    return yaml.load(text, Loader=loader)  # noqa: S506  # a SafeLoader


def find_config(kind: Literal["models", "data", "train", "runs", "sweeps", "ablations"], name: str) -> Path:
    """Return the path of a config.

    Args:
        kind: folder of ``configs/``.
        name: name of a shipped config (``bccd``) or path of a YAML file.

    Raises:
        InputError: neither exists.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"{name}: no such file")
        return path
    shipped = {p.stem: p for p in sorted((CONFIGS / kind).glob("*.yaml"))}
    if name not in shipped:
        folder = ", nor a folder" if kind == "data" else ""
        hint = did_you_mean(name, shipped)
        raise InputError(f"{name!r} is neither a .yaml file nor one of configs/{kind}/{folder}{hint}")
    return shipped[name]


# --------------------------------------------------------------------------------------- typed sections


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
            return f"must be {_SHAPES[kind]}, found {_kind(found)}"
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


def _kind(value: Any) -> str:
    kinds = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}
    return kinds.get(type(value), repr(value))


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """Return ``["optimizer.lr=0.02"]`` as ``{"optimizer.lr": 0.02}``; values are YAML."""
    overrides = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set {pair}: must be key=value, as in --set optimizer.lr=0.02")
        try:
            overrides[key] = yaml.load(value, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise InputError(f"--set {pair}: the value is not valid YAML: {str(error).splitlines()[0]}") from None
    return overrides


def to_plain(config: Any) -> Any:
    """Return a config dataclass as dicts, lists and scalars for YAML, JSON or a checkpoint."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {key: to_plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_plain(value) for value in config]
    return config
