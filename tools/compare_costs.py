"""Draw images at several costs side by side, with the network's milliseconds: what a cheaper instance still sees.

python tools/compare_costs.py --weights best.pt --source photo.jpg --costs 1.0 0.6 0.3

The model must have been trained with SDPoint and measured (tools/evaluate.py --instances). Milliseconds are those of
the network alone for the image, the median of several runs, in turn.
"""

from __future__ import annotations

from detect.runtime.startup import start_tool

if __name__ == "__main__":
    start_tool()  # before the imports, which take seconds

from pathlib import Path

from detect.errors import InputError
from detect.inference.classifier import Classifier
from detect.inference.predictor import open_predictor
from detect.inference.sources import expand_sources, image_paths
from detect.papers.sdpoint.cost_sheet import write_cost_sheets
from detect.runtime.cli import THREADS_HELP, ToolParser, non_negative_int, run_tool
from detect.runtime.folders import held_folder
from detect.runtime.threads import use_threads


def main() -> None:
    """Parse, draw, say where the pictures are."""
    parser = ToolParser(__doc__)
    add = parser.add_argument
    add("--weights", required=True, type=Path, metavar="FILE", help="a checkpoint with measured instances")
    add("--source", required=True, nargs="+", metavar="IMAGE|FOLDER|GLOB", help="what to look at; several are allowed")
    add(
        "--costs",
        nargs="+",
        type=float,
        default=[1.0, 0.6, 0.3],
        metavar="SHARE",
        help="of the full cost, each a panel",
    )
    add("--out", type=Path, default=Path("runs/costs"), metavar="DIR", help="where pictures go (default: runs/costs)")
    add("--image-size", type=int, metavar="S", help="long side of the network input in pixels (default: as trained)")
    add("--conf", type=float, metavar="T", help="of detectors: least score, from 0 to 1 (default: 0.25)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="number format of the network")
    add("--threads", type=non_negative_int, default=0, metavar="N", help=THREADS_HELP)
    args = parser.parse_args()
    use_threads(args.threads)
    paths = image_paths(expand_sources(args.source))
    predictor = open_predictor(args.weights, args.device, args.precision)
    if args.conf is not None and isinstance(predictor, Classifier):
        raise InputError(f"--conf: of detectors only; {args.weights} is a classifier")
    given = {"image_size": args.image_size, "conf": args.conf}
    options = {name: value for name, value in given.items() if value is not None}
    with held_folder(args.out):
        for line in write_cost_sheets(predictor, paths, args.costs, args.out, **options):
            print(line)


if __name__ == "__main__":
    run_tool(main)
