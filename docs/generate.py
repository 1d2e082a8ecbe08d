"""Pages that come from the code, and from files outside ``docs``."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import importlib
import inspect
import os
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from detect.analysis.listing import listed
from detect.analysis.profile import build_on_meta, conditions_of, graph_macs
from detect.cli.main import COMMANDS
from detect.cli.parser import EXIT_CODES, ToolParser
from detect.config.describe import KeyDescription, describe_keys
from detect.models.catalog import find_definition, shipped_weights
from detect.models.registry import BLOCKS, Block
from detect.runtime.files import write_text

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MODEL_TIMES = DOCS / "results" / "model-times.csv"
"""Milliseconds by model; ``benchmarks/model_times.py`` writes it."""
MIRRORS = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "speed.md",
    "data/README.md": "data-formats.md",
    "weights/README.md": "weights.md",
} | {f"weights/{name}.md": f"{name}.md" for name in shipped_weights()}
"""Files of the repository that are pages as well, and the names of the pages in ``docs/generated``."""
EVERY_COMMAND = """\
- `KEY=VALUE` is `--KEY VALUE`, in training also any key of the recipe. Other tools' names (`imgsz`, `batch`, `lr0`,
  `patience`, `project`, `name`) are understood, and a line says as what.
- Results go to standard output, everything else to standard error; with `--json` the result is JSON.
- On a terminal there are progress bars; in a log there is a line every half minute. `| head -2` does not shorten the
  work: all files are written.
- In a checkout `python tools/train.py`, `tools/evaluate.py` and the others are the same commands.
"""
KIND_TITLES = {
    "recipe/detection": "Recipe of a detector",
    "recipe/classification": "Recipe of a classifier",
    "data": "Data config",
    "model": "Model",
    "model/part": "Model: a file of one part",
    "model/section": "Model: backbone, neck and head",
    "model/row": "Model: a row",
    "model/scale": "Model: scale",
    "model/norm": "Model: norm",
    "model/conv": "Model: conv",
    "run": "Experiment",
    "sweep": "Search",
    "ablation": "Comparison",
}

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")


def write_pages(out: Path) -> None:
    """Write all generated pages; a file whose content is the same keeps its date."""
    pages = {
        "commands.md": commands_page(),
        "config-keys.md": keys_page(describe_keys()),
        "models.md": models_page(),
        "blocks.md": blocks_page(),
    }
    pages |= {name: mirrored(ROOT / source, out / name) for source, name in MIRRORS.items()}
    out.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        path = out / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


# --------------------------------------------------------------------------------------------- commands


def parser_of(command: str) -> ToolParser:
    """Return the argument parser of a command of ``detect``."""
    module = importlib.import_module(f"detect.cli.{COMMANDS[command].module}")
    parser = ToolParser(module.__doc__, f"detect {command}")
    module.add_arguments(parser)
    return parser


def commands_page() -> str:
    parts = ["# Commands\n", "Each command is `detect COMMAND`; `detect COMMAND --help` prints what stands here.\n"]
    parts.append(EVERY_COMMAND)
    parts.append(f"```text\n{EXIT_CODES}```\n")
    for name, command in COMMANDS.items():
        if command.about:
            parts += _command(parser_of(name), f"## detect {name}")
    return "\n".join(parts)


def _command(parser: argparse.ArgumentParser, heading: str) -> Iterator[str]:
    yield f"{heading}\n"
    yield _description(parser.description or "")
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in parser._action_groups:
        options = [action for action in group._group_actions if _is_option(action)]
        if options and group.title not in ("options", "positional arguments"):
            yield f"*{group.title}*\n"
        yield from (_option(action) for action in options)
    for action in below:
        for name, inner in action.choices.items():
            yield from _command(inner, f"### {parser.prog.removesuffix(name)} {name}")


def _is_option(action: argparse.Action) -> bool:
    return not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))


def _description(text: str) -> str:
    """A command's docstring as Markdown: its example lines as a block."""
    lines: list[str] = []
    for is_example, group in groupby(text.strip().splitlines(), _is_example):
        found = list(group)
        lines += ["```bash", *map(_commented, found), "```"] if is_example else map(_escaped, found)
    return "\n".join(lines) + "\n"


def _is_example(line: str) -> bool:
    return line.startswith(("detect ", "torchrun "))


def _commented(line: str) -> str:
    """An example with what stands behind it, after some spaces, as a comment."""
    return re.sub(r"(?<=\S) {3,}(?=\S)", "  # ", line)


def _option(action: argparse.Action) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
    value = argparse.HelpFormatter("")._format_args(action, action.dest.upper()) if action.nargs != 0 else ""
    shown = f" `{value}`" if value and action.option_strings else ""
    required = " (required)" if action.required and action.option_strings else ""
    return f"{names}{shown}{required}\n: {_escaped(action.help or 'See the recipe key of this name.')}\n"


def _escaped(text: str) -> str:
    """Text of the code as one line of Markdown; what stands in double or single backticks is code."""
    pieces = re.split(r"(`[^`]+`)", " ".join(text.replace("``", "`").split()))
    return "".join(piece if piece.startswith("`") else re.sub(r"([*<>|\[\]_])", r"\\\1", piece) for piece in pieces)


# ------------------------------------------------------------------------------------------------- keys


def keys_page(keys: Iterable[KeyDescription]) -> str:
    parts = [
        "# Keys of configs\n",
        "Every key of every YAML file, with its type, default and limits. `detect config KEY` prints the same.",
        "An unknown key is an error.\n",
    ]
    for kind, group in groupby(keys, lambda key: key.kind):
        parts.append(f"## {KIND_TITLES[kind]}\n")
        parts += map(_key, group)
    return "\n".join(parts)


def _key(key: KeyDescription) -> str:
    unit = f" {key.unit}" if key.unit else ""
    default = "required" if key.required else f"default `{key.default}`{unit}" if key.default else ""
    facts = "; ".join(filter(None, (key.type, default, key.limits)))
    source = f" Source: {key.source}" if key.source and key.type == "section" else ""
    return f"`{key.key}`\n: {_escaped(key.meaning)}{_escaped(source)} *({facts})*\n"


# ----------------------------------------------------------------------------------------------- models


def models_page() -> str:
    groups = listed()
    models = groups["models"]
    classifiers = {name: about for name, about in models.items() if find_definition(name).is_classifier}
    detectors = {name: about for name, about in models.items() if name not in classifiers}
    parts = [
        "# Models\n",
        "Any backbone fits any neck: `--model BACKBONE+NECK`. Words such as `spd`, `width=0.5` and `bdsc` change what",
        "stands before them: [how a name is built](../how-to/choose-a-model.md).",
        "`detect describe --model NAME --image-size S --num-classes K` prints one model, row by row.\n",
        "A multiply-add is one multiplication with its addition; published FLOPs are often twice as many. ms is the",
        "processor time of a forward pass of one image on one thread of an AMD EPYC (Zen 3), fp32",
        "(`python benchmarks/model_times.py`). AP is that of [shipped weights](weights.md), which have fewer classes",
        "and their own image size.\n",
        "## Detectors\n",
        "At 640 px with 80 classes.\n",
        *_cost_table(detectors),
        "\n## Classifiers\n",
        "Backbones and classifiers. Those with a map of 32 input pixels per cell, which fit a neck, at 224 px with",
        "1000 classes; the others, for small images only, at 32 px with 10 classes.\n",
        *_cost_table(classifiers | groups["backbones"]),
    ]
    for group in ("necks", "heads"):
        parts += [f"\n## {group.capitalize()}\n", "| name | what it is |", "|---|---|"]
        parts += [f"| `{name}` | {_escaped(about)} |" for name, about in groups[group].items()]
    return "\n".join(parts) + "\n"


def _cost_table(names: dict[str, str]) -> Iterator[str]:
    with MODEL_TIMES.open(newline="", encoding="utf-8") as file:
        times = {row["model"]: row["ms"] for row in csv.DictReader(file)}
    accuracies = _shipped_accuracies()
    yield "| name | parameters | multiply-adds | ms | AP | what it is |"
    yield "|---|--:|--:|--:|---|---|"
    for name, about in names.items():
        side, num_classes = conditions_of(name)
        graph = build_on_meta(name, num_classes)
        parameters, macs = sum(p.numel() for p in graph.parameters()), graph_macs(graph, (side, side))
        costs = f"{parameters:,} | {macs / 1e9:.3f} G | {float(times[name]):,g} | {'; '.join(accuracies.get(name, []))}"
        yield f"| `{name}` | {costs} | {_escaped(about)} |"


def _shipped_accuracies() -> dict[str, list[str]]:
    """Return AP of the shipped weights of each model, with a link to their card."""
    found: dict[str, list[str]] = {}
    table = (ROOT / "weights" / "README.md").read_text(encoding="utf-8")
    pattern = r"^\| \[([\w-]+)-(\w+)\]\([^|]*\|[^|]*\| ([\d.]+) \|"
    for name, data, average_precision in re.findall(pattern, table, re.MULTILINE):
        if not name.startswith("start"):
            link = f"[{data}]({name}-{data}.md)"
            found.setdefault(name.removesuffix("-deeppcb"), []).append(f"{average_precision} ({link})")
    return found


# ----------------------------------------------------------------------------------------------- blocks


def blocks_page() -> str:
    parts = [
        "# Blocks\n",
        "What a row of a model's YAML may name as `module`, with the keywords of its `args`. `in_channels`,",
        "`in_reductions`, `num_classes` and `repeats` are not written: the builder passes them.\n",
    ]
    for name, block in sorted(BLOCKS.items()):
        about = inspect.cleandoc(block.__doc__ or "").split("\n\nArgs:")[0].split("\n\nSource:")[0]
        keywords = ", ".join(f"`{word}`" for word in _keywords(block)) or "none"
        parts.append(f"## {name}\n\n{_escaped(about)}\n\nKeywords: {keywords}\n")
    return "\n".join(parts)


def _keywords(block: type[Block]) -> Iterator[str]:
    given = {"self", "in_channels", "in_reductions", "num_classes", "repeats", "options"}
    for parameter in inspect.signature(block.__init__).parameters.values():
        if parameter.name not in given and parameter.kind is not parameter.VAR_KEYWORD:
            yield parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default}"
    if block.Options is not None:
        yield from (f"{field.name}={field.default}" for field in dataclasses.fields(block.Options))


# ---------------------------------------------------------------------------- files of the repository


def mirrored(source: Path, page: Path) -> str:
    """Return a file of the repository as a page: links lead to pages; to what has none, they become code."""

    def moved(link: re.Match[str]) -> str:
        target = (source.parent / link["target"]).resolve()
        relative = target.relative_to(ROOT).as_posix()
        if relative in MIRRORS:
            goal = page.parent / MIRRORS[relative]
        elif target.is_relative_to(DOCS):
            goal = target
        else:
            return f"`{relative}`" if link["text"].strip("`") in link["target"] else f"{link['text']} (`{relative}`)"
        return f"[{link['text']}]({Path(os.path.relpath(goal, page.parent)).as_posix()}{link['anchor'] or ''})"

    return _LINK.sub(moved, source.read_text(encoding="utf-8"))


# --------------------------------------------------------------------------------------------- llms.txt


def write_index_for_language_models(out: Path, titles: dict[str, str], names: list[str]) -> None:
    """Write ``llms.txt``: a link to each page as Markdown, by folder.

    Args:
        out: the folder of the site.
        titles: by the name of the page.
        names: of the pages, in the order of the site.
    """
    folders: dict[str, list[str]] = {}
    for name in names:
        folder = name.rpartition("/")[0].replace("generated", "reference") or "about"
        folders.setdefault(folder, []).append(f"- [{titles[name]}](_sources/{name}.md.txt)")
    lines = ["# detect", "", "> Object detection for small objects, with PyTorch, from Python or the command line."]
    for folder, links in folders.items():
        lines += ["", f"## {folder}", "", *links]
    write_text(out / "llms.txt", "\n".join(lines) + "\n")
