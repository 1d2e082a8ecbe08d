"""Strict YAML files: reading, writing, and the folder of those that are shipped.

A file holds one mapping. ``InputError`` is raised if it is missing, unreadable, too large, not YAML, nested too deeply,
has duplicate keys, aliases or tags, or is not a mapping.
"""

from __future__ import annotations

import copy
import functools
import re
from pathlib import Path
from typing import Any, Literal

import yaml

from detect.errors import InputError, did_you_mean, is_writable, unreadable

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
        raise unreadable(path, error) from None
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
        raise InputError(f"{path}: must be a mapping (key: value), found {kind_of(content)}")
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


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """Return ``["optimizer.lr=0.02"]`` as ``{"optimizer.lr": 0.02}``; values are YAML, and no key is there twice."""
    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set {pair}: must be key=value, as in --set optimizer.lr=0.02")
        if key in overrides:
            raise InputError(f"--set {pair}: {key} is given twice")
        try:
            overrides[key] = yaml.load(value, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise InputError(f"--set {pair}: the value is not valid YAML: {str(error).splitlines()[0]}") from None
    return overrides


def kind_of(value: Any) -> str:
    """Kind of a value of a YAML file, in words for messages."""
    kinds = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}
    return kinds.get(type(value), repr(value))
