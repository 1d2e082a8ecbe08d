"""Print a paper's table beside the measurements of the models here, with the deviations and their reasons.

detect reproduce csp-table-3
detect reproduce bdsc-table-1 --picture figure-2.png
detect reproduce --list

The exit code is 3 if a value here deviates from the paper's by more than the table's tolerance; rows that the table
marks as not reproduced do not count. Measured accuracy is read from docs/results/TABLE.json: {label of a row: {name of
a column: value}}. Below the table stands the command that measures a row.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from detect.cli.output import print_json
from detect.errors import InputError
from detect.runtime.startup import heavy_imports

BEYOND_TOLERANCE = 3
"""Exit code."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", nargs="?", metavar="TABLE", help="a name of --list, or a YAML file")
    parser.add_argument("--list", action="store_true", help="print the names and titles of the shipped tables")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="draw the paper's figure of the table, if it has one"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    if args.list == bool(args.table) or (args.list and args.picture):
        raise InputError("give the name of a table, or --list; --help lists what there is")
    with heavy_imports():
        from detect.config.yaml_files import CONFIGS
        from detect.papers.tables.report import comparison_plain, comparison_text, draw_figure
        from detect.papers.tables.tables import (
            compare,
            load_results,
            load_table,
            shipped_tables,
        )
    if args.list:
        tables = [load_table(name) for name in shipped_tables()]
        width = max(len(table.name) for table in tables)
        print("\n".join(f"{table.name:<{width}}  {table.title}" for table in tables))
        return
    table = load_table(args.table)
    results = CONFIGS.parent / "docs" / "results" / f"{table.name}.json"
    comparisons = compare(table, load_results(results, table))
    if args.picture:
        draw_figure(args.picture, table, comparisons)
    if args.json:
        print_json(comparison_plain(table, comparisons))
    else:
        print(comparison_text(table, comparisons))
    if not all(comparison.within_tolerance for comparison in comparisons):
        sys.exit(BEYOND_TOLERANCE)
