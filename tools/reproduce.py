"""Print a paper's table beside what the models here measure, with the deviations and why.

python tools/reproduce.py csp-table-3
python tools/reproduce.py --list

The exit code is 3 where a value of ours is further from the paper's than the table allows; rows that the table itself
calls not reproduced do not count. Measured accuracy is read from docs/results/TABLE.json: {label of a row: {name of a
column: value}}.
"""

from __future__ import annotations

from detect.runtime.startup import start_tool

if __name__ == "__main__":
    start_tool()  # before the imports, which take seconds

import json
import sys
from pathlib import Path

from detect.papers.tables.tables import compare, load_results, load_table, shipped_tables
from detect.papers.tables.text import comparison_plain, comparison_text
from detect.runtime.cli import ToolParser, run_tool

RESULTS = Path(__file__).parents[1] / "docs" / "results"
BEYOND_TOLERANCE = 3
"""Exit code."""


def main() -> None:
    """Parse, measure, print."""
    parser = ToolParser(__doc__)
    parser.add_argument("table", nargs="?", metavar="TABLE", help="a name of --list, or a YAML file")
    parser.add_argument("--list", action="store_true", help="print the names and titles of the shipped tables")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    if args.list == bool(args.table):
        parser.error("give the name of a table, or --list")
    if args.list:
        tables = [load_table(name) for name in shipped_tables()]
        width = max(len(table.name) for table in tables)
        print("\n".join(f"{table.name:<{width}}  {table.title}" for table in tables))
        return
    table = load_table(args.table)
    comparisons = compare(table, load_results(RESULTS / f"{table.name}.json", table))
    if args.json:
        print(json.dumps(comparison_plain(table, comparisons), indent=1))
    else:
        print(comparison_text(table, comparisons))
    if not all(comparison.within_tolerance for comparison in comparisons):
        sys.exit(BEYOND_TOLERANCE)


if __name__ == "__main__":
    run_tool(main)
