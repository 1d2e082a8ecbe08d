"""Draw what a trained model finds in images: ``python tools/predict.py --weights best.pt --source photos``."""

from __future__ import annotations

import argparse
from pathlib import Path

from detect.inference.detector import Detector
from detect.inference.outputs import OutputOptions, PredictionWriter
from detect.inference.run import predict_files
from detect.inference.sources import expand_sources
from detect.runtime.cli import ToolParser, run_tool


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = ToolParser("Draw what a trained model finds in images.")
    add = parser.add_argument
    add("--weights", required=True, metavar="FILE", help="a checkpoint that tools/train.py wrote")
    add("--source", required=True, nargs="+", metavar="IMAGE|FOLDER|GLOB", help="what to look at; several are allowed")
    add(
        "--out", type=Path, default=Path("runs/predict"), metavar="DIR", help="where results go (default: runs/predict)"
    )
    add("--conf", type=float, default=0.25, metavar="T", help="least score, from 0 to 1 (default: 0.25)")
    add("--iou", type=float, default=0.6, metavar="T", help="boxes of a class that overlap more are one (default: 0.6)")
    add("--max-det", type=int, default=300, metavar="N", help="most detections per image (default: 300)")
    add("--classes", nargs="+", metavar="NAME|INDEX", help="keep these classes only")
    add("--class-agnostic", action="store_true", help="boxes of different classes that overlap are one, too")
    add("--image-size", type=int, metavar="S", help="long side of the network input in pixels (default: as trained)")
    add("--batch-size", type=int, default=1, metavar="B", help="images of one shape per pass (default: 1)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="number format of the network")
    add("--save-json", action="store_true", help="write predictions.json: boxes, scores and class names")
    add("--save-txt", action="store_true", help="write labels/*.txt: class cx cy w h score, as shares of the image")
    add("--save-crops", action="store_true", help="write crops/CLASS/*.jpg: each detection cut out")
    return parser.parse_args()


def main() -> None:
    """Predict, write and print one line per image."""
    args = parse_arguments()
    paths = expand_sources(args.source)
    detector = Detector(args.weights, args.device, args.precision)
    writer = PredictionWriter(args.out, paths, OutputOptions(args.save_json, args.save_txt, args.save_crops))
    options = {
        "conf": args.conf,
        "iou": args.iou,
        "max_det": args.max_det,
        "classes": args.classes,
        "image_size": args.image_size,
        "class_agnostic": args.class_agnostic,
    }
    for prediction in predict_files(detector, paths, args.batch_size, **options):
        writer.add(prediction.path, prediction.image_rgb, prediction.detections)
        print(prediction.line())
    for line in writer.finish():
        print(line)


if __name__ == "__main__":
    run_tool(main)
