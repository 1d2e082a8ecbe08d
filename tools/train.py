"""Train a detector or a classifier: the model's head decides.

python tools/train.py --run configs/runs/bccd-yolov5n-spd.yaml --data-root data/bccd
python tools/train.py --model yolov5n-spd --data my-data.yaml --image-size 320
python tools/train.py --model resnet18-spd --data cifar10 --image-size 32
torchrun --nproc-per-node 4 tools/train.py --model yolov5s-spd --data coco --data-root FOLDER --batch-size 64
"""

from __future__ import annotations

from detect.runtime.startup import start_tool

if __name__ == "__main__":
    start_tool()  # before the imports, which take seconds

from detect.runtime.cli import THREADS_HELP, ToolParser, non_negative_int, positive_int, run_tool
from detect.runtime.interruption import stop_requests
from detect.runtime.processes import is_first, joined
from detect.training.loop import train
from detect.training.run import ANYWAY, settings_from_args


@joined()
def main() -> None:
    """Parse, train, say where the result is."""
    parser = ToolParser(__doc__)
    parser.add_argument("--run", metavar="FILE", help="experiment: a file, or the name of one in configs/runs")
    parser.add_argument(
        "--model",
        metavar="NAME|FILE",
        help="a model, a YAML, or parts: cspdarknet53+efm+spd (tools/describe.py --list)",
    )
    parser.add_argument("--data", metavar="NAME|FILE", help="data set's name or YAML")
    parser.add_argument(
        "--recipe", metavar="NAME|FILE", help="recipe's name or YAML (default: default; for classifiers: classify)"
    )
    parser.add_argument(
        "--weights", metavar="FILE|NAME", help="checkpoint to start from; what fits is copied, classes by name"
    )
    parser.add_argument("--epochs", type=positive_int, metavar="N")
    parser.add_argument("--batch-size", type=positive_int, metavar="B", help="images, over all processes")
    parser.add_argument("--image-size", type=positive_int, metavar="S", help="side of the square input in pixels")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N, mps (default: auto)")
    parser.add_argument(
        "--workers", type=non_negative_int, metavar="N", help="processes that load data, for each one that trains"
    )
    parser.add_argument("--threads", type=non_negative_int, metavar="N", help=THREADS_HELP)
    parser.add_argument("--seed", type=non_negative_int, metavar="N")
    parser.add_argument("--data-root", metavar="DIR", help="where the data set is, instead of what its YAML says")
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: a new one in runs/)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        choices=(ANYWAY,),
        help=f"continue the run in --out; {ANYWAY}: although its images or boxes have changed",
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse damaged images and boxes instead of skipping them"
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="recipe keys, dotted"
    )
    settings = settings_from_args(parser.parse_args())
    with stop_requests() as stop:
        best = train(settings, stop)
    if is_first():
        scores = ", ".join(f"{name} {value:.3f}" for name, value in list(best.items())[:6])
        print(f"best.pt on the validation split: {scores}")
        print(f"{settings.out}: best.pt, last.pt, results.csv, config.yaml, pictures, TensorBoard events")


if __name__ == "__main__":
    run_tool(main)
