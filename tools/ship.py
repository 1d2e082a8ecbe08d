"""Make a checkpoint fit to be given away: half precision, no state of the training, no paths of the machine.

python tools/ship.py --weights runs/mine/best.pt --out weights/mine.pt

It prints what the file knows for its model card; weights/README.md says what else belongs there. Measure the file that
was written: tools/evaluate.py --weights weights/mine.pt.
"""

from __future__ import annotations

from detect.runtime.startup import start_tool

if __name__ == "__main__":
    start_tool()  # before the imports, which take seconds

from pathlib import Path

from detect.models.shipping import ship
from detect.runtime.cli import ToolParser, run_tool


def main() -> None:
    """Write the file and print the rows of its card."""
    parser = ToolParser(__doc__)
    add = parser.add_argument
    add("--weights", required=True, type=Path, metavar="FILE", help="a checkpoint that tools/train.py wrote")
    add("--out", required=True, type=Path, metavar="NAME.pt", help="the file to be written")
    args = parser.parse_args()
    rows = ship(args.weights, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB\n")
    print("\n".join(rows))


if __name__ == "__main__":
    run_tool(main)
