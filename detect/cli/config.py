"""Explain the keys of recipes, data configs, models, experiments and searches: type, unit, default, limits, meaning.

detect config
detect config optimizer.lr
detect config augment
"""

from __future__ import annotations

import argparse
import dataclasses

from detect.cli.output import print_json
from detect.runtime.startup import heavy_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "key", nargs="?", metavar="KEY", help="dotted, or its last word, or a section; default: list all keys"
    )
    parser.add_argument("--json", action="store_true", help="print JSON: a list of keys")


def run(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.config.describe import describe_keys, explain_key
    keys = explain_key(args.key) if args.key else describe_keys()
    records = [dataclasses.asdict(key) for key in keys]
    if args.json:
        print_json(records)
    elif args.key:
        every = [dataclasses.asdict(key) for key in describe_keys()]
        print("\n\n".join(_explained(record) + _keys_of(record, every) for record in records))
    else:
        print("\n".join(_line(record) for record in records))


def _explained(record: dict[str, str]) -> str:
    facts = {name: _fact(name, value) for name, value in record.items() if value not in ("", False)}
    return "\n".join(f"{name:<9} {value}" for name, value in facts.items())


def _keys_of(section: dict[str, str], every: list[dict[str, str]]) -> str:
    """Return a line for each key of a section; empty for any other key."""
    inside = [one for one in every if one["kind"] == section["kind"] and one["key"].startswith(f"{section['key']}.")]
    return "".join(f"\n{_line(one)}" for one in inside)


def _fact(name: str, value: object) -> str:
    return "yes" if name == "required" else str(value)


def _line(record: dict[str, str]) -> str:
    unit = f" {record['unit']}" if record["unit"] else ""
    default = "required" if record["required"] else f"= {record['default']}{unit}" if record["default"] else ""
    limits = f" ({record['limits']})" if record["limits"] else ""
    return f"{record['kind']:<22} {record['key']:<34} {default}{limits}  {record['meaning']}"
