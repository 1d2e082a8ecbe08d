"""YAML files to the dataclasses of ``detect.config.schema``, with every mistake told at once."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import types
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from detect.config.schema import (
    ClassificationRecipe,
    DataConfig,
    DetectionRecipe,
    ParameterConfig,
    Recipe,
    RunConfig,
    SweepConfig,
)
from detect.errors import InputError, did_you_mean, is_writable

Schema = TypeVar("Schema")
AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)

_PACKAGED = Path(__file__).parents[1] / "configs"
CONFIGS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "configs"
"""Folder of the shipped configs: inside an installed package, or beside it in a checkout."""

_YAML_FILE = re.compile(r".+\.ya?ml(?=$|:)")
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
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 (a SafeLoader)
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


def build(schema: type[Schema], content: dict[str, Any], where: str) -> Schema:
    """A mapping as a checked dataclass.

    Args:
        schema: a dataclass of ``detect.config.schema``.
        content: the mapping.
        where: what the messages call its origin, usually the file.

    Raises:
        InputError: unknown or missing keys, wrong types, values outside their limits; all of them in one line.
    """
    errors: list[str] = []
    value = _build(schema, content, "", errors)
    if errors:
        raise InputError(f"{where}: " + "; ".join(errors))
    return value


def load_data_config(name: str, data_root: str | None = None) -> DataConfig:
    """A data set's configuration with ``root`` as an absolute path.

    Args:
        name: a shipped data config's name or a file.
        data_root: replaces the file's ``root``; relative to the current folder.
    """
    path = find_config("data", name)
    config = build(DataConfig, load_yaml(path), str(path))
    if not config.splits:
        raise InputError(f"{path}: splits: is empty; name at least train and val")
    root = os.path.expanduser(data_root or config.root)  # noqa: PTH111 (leaves the home of nobody as it is)
    if not is_path(root):
        raise InputError(f"{path}: root: {root!r:.100} cannot be a path")
    return dataclasses.replace(config, root=os.path.realpath(root if data_root else _root_folder(path) / root))


def _root_folder(path: Path) -> Path:
    """Folder that a relative ``root`` starts from; for an installed config the current one stands for a checkout."""
    is_installed = path.is_relative_to(_PACKAGED)
    return Path("configs", "data").absolute() if is_installed else path.parent


def is_path(text: str) -> bool:
    """Whether a system could take a text for a path: it has no zero byte, can be encoded, and is not too long."""
    try:
        return "\0" not in text and len(os.fsencode(text)) < _MAX_PATH
    except UnicodeEncodeError:
        return False


def load_detection_recipe(name: str, overrides: dict[str, Any]) -> DetectionRecipe:
    """A detector's recipe with dotted ``overrides`` (``{"optimizer.lr": 0.02}``) on top."""
    recipe = _load_recipe(DetectionRecipe, name, overrides)
    size = recipe.image_size
    if size % 32:
        nearest = f"the nearest are {size // 32 * 32} and {size // 32 * 32 + 32}" if size > 32 else "the least is 32"
        raise InputError(f"{find_config('train', name)}: image_size: {size} is not a multiple of 32; {nearest}")
    return recipe


def load_classification_recipe(name: str, overrides: dict[str, Any]) -> ClassificationRecipe:
    """A classifier's recipe with dotted ``overrides`` on top."""
    recipe = _load_recipe(ClassificationRecipe, name, overrides)
    for key, values, wanted in (
        ("resize_px", recipe.augment.resize_px, recipe.augment.crop == "resize"),
        ("area", recipe.augment.area, recipe.augment.crop == "area"),
    ):
        if wanted and (len(values) != 2 or values[0] > values[1]):
            found = list(values)
            raise InputError(f"{name}: augment.{key}: must be the smallest and the largest, found {found}")
    if recipe.augment.crop == "resize" and recipe.augment.resize_px[0] < recipe.image_size:
        raise InputError(
            f"{name}: augment.resize_px: must not be below image_size {recipe.image_size}, "
            f"found {recipe.augment.resize_px[0]}"
        )
    if recipe.augment.mixup + recipe.augment.cutmix > 1:
        raise InputError(f"{name}: augment: mixup and cutmix exclude each other, so together they must be at most 1")
    if recipe.cache == "disk":
        raise InputError(f"{name}: cache: disk is for detection; allowed here: none, ram")
    return recipe


def _load_recipe(schema: type[AnyRecipe], name: str, overrides: dict[str, Any]) -> AnyRecipe:
    path = find_config("train", name)
    content = load_yaml(path)
    _refuse_other_task(schema, content, path)
    for key, value in overrides.items():
        _put(content, key, value)
    recipe = build(schema, content, f"{path} (with what was set on top)" if overrides else str(path))
    if not recipe.evaluation.save_best:
        least = schema().evaluation.save_best[0]
        raise InputError(f"{path}: evaluation.save_best: is empty; name at least one metric, such as {least}")
    return recipe


def _refuse_other_task(schema: type[Recipe], content: dict[str, Any], path: Path) -> None:
    """Refuse a recipe that is right as it is, for the other task, by one clear line instead of one for each key."""
    other, task, model = {
        DetectionRecipe: (ClassificationRecipe, "classifiers", "a detector"),
        ClassificationRecipe: (DetectionRecipe, "detectors", "a classifier"),
    }[schema]
    found: dict[type[Recipe], list[str]] = {schema: [], other: []}
    for kind, errors in found.items():
        _build(kind, content, "", errors)
    if found[schema] and not found[other]:
        raise InputError(f"{path}: is a recipe for {task}, but the model is {model}")


def load_run_config(name: str) -> RunConfig:
    """An experiment; a relative ``.yaml`` path in it is looked up beside the file first."""
    path = find_config("runs", name)
    run = build(RunConfig, load_yaml(path), str(path))
    beside: dict[str, Any] = {
        key: str(path.parent / value)
        for key, value in (("model", run.model), ("data", run.data), ("recipe", run.recipe or ""))
        if (file := _YAML_FILE.match(value)) and (path.parent / file.group()).is_file()
    }
    return dataclasses.replace(run, **beside)


def load_sweep_config(name: str) -> SweepConfig:
    """A random search; paths to YAML files in it, beside the file or from the current folder, are made absolute.

    Args:
        name: a shipped sweep's name or a file.

    Raises:
        InputError: there is no such file, or it cannot be a search: nothing to train, nothing or nonsense to draw.
    """
    path = find_config("sweeps", name)
    sweep = build(SweepConfig, load_yaml(path), str(path))
    problems = [] if sweep.space else ["space: is empty; name at least one key of the recipe"]
    if not sweep.run and not (sweep.model and sweep.data):
        problems.append("run: is missing; name an experiment, or a model and data")
    for key, parameter in sweep.space.items():
        problems += [f"space.{key}: {problem}" for problem in _parameter_problems(parameter)]
        problems += [f"space.{key}: stands in set too"] if key in sweep.set else []
    if problems:
        raise InputError(f"{path}: {'; '.join(problems)}")
    files: dict[str, Any] = {
        key: _absolute(value, path.parent)
        for key in ("run", "model", "data", "recipe")
        if (value := getattr(sweep, key)) is not None
    }
    return dataclasses.replace(sweep, **files)


def _parameter_problems(parameter: ParameterConfig) -> list[str]:
    """What keeps a parameter of a search from being drawn."""
    low, high, choices = parameter.low, parameter.high, parameter.choices
    if choices:
        if low is not None or high is not None or parameter.log:
            return ["has choices and a range; only one of them can be"]
        if not all(isinstance(choice, (str, int, float)) for choice in choices):
            return ["choices: must be words, numbers, true or false"]
        return ["choices: one stands twice"] if len(set(choices)) < len(choices) else []
    if low is None or high is None:
        return ["must have low and high, or choices"]
    if low > high:
        return [f"low {low:g} is above high {high:g}"]
    if parameter.log and low <= 0:
        return [f"low {low:g} has no logarithm; with log: true it must be above 0"]
    return []


def _absolute(value: str, folder: Path) -> str:
    """A name as it is; the path of a YAML file, in ``folder`` or else from the current one, as an absolute path."""
    file = _YAML_FILE.match(value)
    if file is None:
        return value
    return os.path.abspath(folder / value if (folder / file.group()).is_file() else value)


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


def _put(content: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        below = content.setdefault(parent, {})
        if not isinstance(below, dict):
            raise InputError(f"{dotted}: {parent} is a value, not a section")
        content = below
    content[last] = value


def _build(schema: Any, content: Any, where: str, errors: list[str]) -> Any:
    if not isinstance(content, dict):
        errors.append(f"{where or 'the file'}: must be a mapping, found {_kind(content)}")
        return None
    hints = get_type_hints(schema)
    fields = {f.name: f for f in dataclasses.fields(schema)}
    values = {}
    for key, found in content.items():
        label = f"{where}.{key}" if where else str(key)
        if key not in fields:
            errors.append(f"{label}: unknown key{did_you_mean(str(key), fields)}")
            continue
        values[key] = _value(hints[key], found, label, errors)
        _check_limits(values[key], fields[key].metadata.get("limits"), label, errors)
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in content:
            errors.append(f"{where + '.' if where else ''}{name}: is missing")
            values[name] = None
    return schema(**values)


def _value(hint: Any, found: Any, where: str, errors: list[str]) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if found is None:
            return None
        return _value(_alternative([a for a in args if a is not type(None)], found), found, where, errors)
    if dataclasses.is_dataclass(hint):
        return _build(hint, found, where, errors)
    if origin is Literal:
        if found not in args or isinstance(found, bool):
            hint_text = did_you_mean(found, args) if isinstance(found, str) else f"; allowed: {', '.join(args)}"
            errors.append(f"{where}: {found!r} is not allowed{hint_text}")
        return found
    if origin is tuple:
        if not isinstance(found, list):
            errors.append(f"{where}: must be a list, found {_kind(found)}")
            return ()
        return tuple(_value(args[0], item, f"{where}[{i}]", errors) for i, item in enumerate(found))
    if origin is dict:
        if not isinstance(found, dict):
            errors.append(f"{where}: must be a mapping, found {_kind(found)}")
            return {}
        return {str(key): _value(args[1], item, f"{where}.{key}", errors) for key, item in found.items()}
    return _scalar(hint, found, where, errors)


def _alternative(hints: list[Any], found: Any) -> Any:
    """The type of a union that is written as ``found`` is, else the first."""
    written_as = {tuple: list, dict: dict, Literal: str}
    kinds: list[Any] = [dict if dataclasses.is_dataclass(hint) else written_as.get(get_origin(hint)) for hint in hints]
    return next((hint for hint, kind in zip(hints, kinds, strict=True) if type(found) is kind), hints[0])


def _scalar(hint: Any, found: Any, where: str, errors: list[str]) -> Any:
    if hint is Any:
        return found
    is_int = isinstance(found, int) and not isinstance(found, bool)
    if hint is float and (is_int or isinstance(found, float)) and abs(found) <= sys.float_info.max:
        return float(found)
    if (hint is int and is_int) or (hint in (bool, str) and isinstance(found, hint)):
        return found
    wanted = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}[hint]
    hint_text = " (write null for nothing)" if found == "None" else ""
    errors.append(f"{where}: must be {wanted}, found {found!r}{hint_text}")
    return found


def _check_limits(value: Any, limits: tuple[float | None, float | None] | None, where: str, errors: list[str]) -> None:
    if isinstance(value, tuple):
        for i, item in enumerate(value):
            _check_limits(item, limits, f"{where}[{i}]", errors)
    if limits is None or not isinstance(value, (int, float)):
        return
    low, high = limits
    if low is not None and value < low:
        errors.append(f"{where}: {value} is below {low}")
    if high is not None and value > high:
        errors.append(f"{where}: {value} is above {high}")


def _kind(value: Any) -> str:
    kinds = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}
    return kinds.get(type(value), repr(value))
