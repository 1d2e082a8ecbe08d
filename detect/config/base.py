"""Strict YAML, and the base of the typed classes that say what a YAML may hold.

The classes are frozen dataclasses: type, unit, limits, default and meaning stand beside each field, rules among several
fields in ``contradictions`` of the class that owns them. pydantic checks a mapping against them, because it tells every
mistake at once, with its place and its kind, so that the messages are ours; msgspec, faster to import,
stops at the first mistake and does not say what was found. The dataclasses are the standard library's: code inside the
package makes them without a check, and pydantic builds its validators only when a file is read.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import re
import types
from collections.abc import Iterator, Sequence
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
"""Their folder in an installed package; a checkout has none there."""
CONFIGS = INSTALLED_CONFIGS if INSTALLED_CONFIGS.is_dir() else Path(__file__).parents[2] / "configs"
"""Folder of the shipped configs: inside an installed package, or beside it in a checkout."""

YAML_FILE = re.compile(r".+\.ya?ml(?=$|:)")
"""The file in ``FILE`` or ``FILE:VARIANT``."""
_MAX_PATH = 4096
"""Bytes, on Linux."""
MAX_YAML_BYTES = 2**20
MAX_DEPTH = 50
"""Of mappings and lists in one another; the parser goes down by calling itself."""
MAX_NUMBER = 100
"""Characters of a number; what is longer is text. Some forms take time in proportion to the square of their length."""

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
            raise yaml.constructor.ConstructorError(None, None, "half a character (a lone surrogate)", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _TextLoader(_StrictLoader):
    """``_StrictLoader`` that leaves words without quotes as they are written: ``yes``, ``1.10``, ``010``, ``~``."""


class _Dumper(yaml.SafeDumper):
    """``SafeDumper`` that quotes the words which ``_StrictLoader`` would take for numbers."""


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
    """Plain Python types as YAML that ``load_yaml`` reads as the same."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Args:
        path: the file.

    Returns:
        The mapping, made of plain Python types.

    Raises:
        InputError: the file is missing, unreadable, too large, not YAML, nested too deeply, has duplicate keys, aliases
            or tags, or is not a mapping.
    """
    return _load_yaml(path, _StrictLoader)


def load_yaml_as_text(path: Path) -> dict[str, Any]:
    """``load_yaml`` where every word is text as it is written, numbers, truth values and ``~`` as well."""
    return _load_yaml(path, _TextLoader)


def _load_yaml(path: Path, loader: type[_StrictLoader]) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise InputError(f"{path}: larger than {MAX_YAML_BYTES // 2**20} MiB, which no configuration is")
        content = copy.deepcopy(_parse(path.read_text(encoding="utf-8"), loader))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: is not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping (key: value), found {_kind(content)}")
    return content


@functools.lru_cache(maxsize=256)
def _parse(text: str, loader: type[_StrictLoader]) -> Any:
    """Parse a YAML; parts of models are read again and again, and parsing takes 10 ms each."""
    return yaml.load(text, Loader=loader)  # noqa: S506  # a SafeLoader


def find_config(kind: Literal["models", "data", "train", "runs", "sweeps"], name: str) -> Path:
    """The file of a shipped config, or of a path.

    Args:
        kind: folder of ``configs/``.
        name: a shipped config's name (``bccd``) or a path to a YAML file.

    Raises:
        InputError: there is no such file and no such shipped config.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"{name}: no such file")
        return path
    shipped = {p.stem: p for p in sorted((CONFIGS / kind).glob("*.yaml"))}
    if name not in shipped:
        raise InputError(f"{name!r} is neither a .yaml file nor one of configs/{kind}/{did_you_mean(name, shipped)}")
    return shipped[name]


def is_path(text: str) -> bool:
    """Whether a system could take a text for a path: it has no zero byte, can be encoded, and is not too long."""
    try:
        return "\0" not in text and len(os.fsencode(text)) < _MAX_PATH
    except UnicodeEncodeError:
        return False


# --------------------------------------------------------------------------------------- typed sections


@dataclass(frozen=True)
class Unit:
    """The unit of a field, for ``detect.config.describe``."""

    name: str


@dataclass(frozen=True)
class Wanted:
    """The one message for whatever a field refuses; the value that was found is put behind it."""

    text: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(
            handler(source), custom_error_type="wanted", custom_error_message=self.text
        )


Item = TypeVar("Item")
Share = Annotated[float, Interval(ge=0, le=1)]
Listed = Annotated[tuple[Item, ...], Strictness(False)]
"""A list in the YAML, a tuple in the class."""
Named = dict[Annotated[str, BeforeValidator(str)], Item]
"""A mapping with free keys; a key that YAML reads as a number is text all the same."""


class Strict:
    """Base of the dataclasses for one section of a YAML: unknown keys and other types are refused, nothing is converted
    but a whole number to a float.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield the mistakes among several keys: the key that is to blame, or "" for the section, and the message."""
        yield from ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        handler.resolve_ref_schema(schema)["strict"] = False  # type: ignore[index]  # only of the section: a mapping is one
        return core_schema.no_info_after_validator_function(_refuse_contradictions, schema)


def _refuse_contradictions(section: Section) -> Section:
    if found := list(section.contradictions()):
        raise PydanticCustomError("contradictions", "contradictions", {"found": found})
    return section


def build(schema: type[Schema], content: dict[str, Any], where: str, section: str = "") -> Schema:
    """A mapping as a checked dataclass.

    Args:
        schema: a dataclass that derives from ``Strict``.
        content: the mapping.
        where: what the messages call its origin, usually the file.
        section: the key that holds the mapping; by default it is the whole file.

    Raises:
        InputError: unknown or missing keys, wrong types, values outside their limits, contradictions; all in one line.
    """
    try:
        config: Schema = _validator(cast("Any", schema)).validate_python(
            content
        )  # a class is hashable, whatever mypy says
    except ValidationError as error:
        mistakes = [_Mistake.of(details, content) for details in error.errors(include_url=False)]
        ordered = sorted(mistakes, key=lambda mistake: mistake.order)
        told = [message for mistake in ordered for message in mistake.messages(schema, section)]
        raise InputError(f"{where}: {'; '.join(told)}") from None
    return config


@functools.cache
def _validator(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


@dataclass(frozen=True)
class _Mistake:
    """One of pydantic's errors.

    Args:
        order: positions in the file, from the outermost mapping inwards; a missing key comes last.
        path: keys (text) and indices of lists (int) to the place.
        details: pydantic's.
    """

    order: tuple[int, ...]
    path: tuple[str | int, ...]
    details: ErrorDetails

    @classmethod
    def of(cls, details: ErrorDetails, content: Any) -> _Mistake:
        """Find an error's place in the content. What pydantic calls the alternatives of a union is left out."""
        order: list[int] = []
        path: list[str | int] = []
        for key in details["loc"]:
            if isinstance(content, dict) and key in content:
                order.append(list(content).index(key))
                path.append(str(key))
                content = content[key]
            elif isinstance(content, dict) and details["type"] == "missing" and key == details["loc"][-1]:
                order.append(len(content))
                path.append(key)
            elif isinstance(content, list) and isinstance(key, int):
                order.append(key)
                path.append(key)
                content = content[key]
        return cls(tuple(order), tuple(path), details)

    def messages(self, schema: Any, section: str) -> list[str]:
        """The messages: one, or one for each contradiction; ``section`` is the key that holds the content."""
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
            return f"unknown key{did_you_mean(str(self.path[-1]), _keys_at(schema, self.path[:-1]))}"
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
    """A limit as the class has it: pydantic makes 10 of a field for floats 10.0."""
    return str(int(value) if value == int(value) else value)


def _label(path: Sequence[str | int]) -> str:
    """``a.b[0].c``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def _keys_at(schema: Any, path: Sequence[str | int]) -> list[str]:
    """The keys of the section at a path."""
    while path:
        schema, depth = section_of(keys_of(schema)[str(path[0])])
        path = path[1 + depth :]
    return list(keys_of(schema))


def keys_of(section: Any) -> dict[str, Any]:
    """The keys of a section with their annotated types; a word of Python has another name in the class."""
    hints = get_type_hints(section, include_extras=True)
    return {_alias(hints[f.name]) or f.name: hints[f.name] for f in dataclasses.fields(section)}


def _alias(hint: Any) -> str | None:
    return next((one.alias for one in getattr(hint, "__metadata__", ()) if isinstance(one, FieldInfo)), None)


def section_of(hint: Any) -> tuple[Any, int]:
    """The class of the section that a field holds, None for none, and how many lists and mappings are around it."""
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


def written_as(value: Any) -> Literal["list", "mapping", "word"]:
    """The alternative of a union by how it is written; what fits none counts as a list."""
    return "mapping" if isinstance(value, (dict, Strict)) else "word" if isinstance(value, str) else "list"


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """``["optimizer.lr=0.02"]`` as ``{"optimizer.lr": 0.02}``; values are YAML."""
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
    """A config dataclass as dicts, lists and scalars, ready for YAML, JSON or a checkpoint."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {key: to_plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_plain(value) for value in config]
    return config
