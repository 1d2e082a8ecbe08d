"""Make a checkpoint of weights that others trained, without running any code of theirs.

python tools/import_weights.py --weights yolov3.weights --cfg yolov3.cfg --model yolov3 --names coco --out yolov3.pt
python tools/import_weights.py --weights yolov5s.pt --out yolov5s-imported.pt
python tools/import_weights.py --weights darknet53.conv.74 --partial --model yolov3 --names my.names --out start.pt
python tools/import_weights.py --weights resnet50.pth --names imagenet.names --out resnet50-imported.pt

Reads Darknet's .weights, and state dicts or pickled models (.pt, .pth, .th, .safetensors) of the YOLOv5 family, of
torchvision's ResNet, ResNeXt and DenseNet and of ResNets of CIFAR, which become classifiers. The content says
what a file is, not its suffix. The weights keep the licence of those who trained them.
"""

from __future__ import annotations

from detect.runtime.startup import start_tool

if __name__ == "__main__":
    start_tool()  # before the imports, which take seconds

import argparse
from pathlib import Path

from detect.models.foreign.importing import Import, import_weights
from detect.runtime.cli import ToolParser, positive_int, run_tool


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = ToolParser(__doc__)
    add = parser.add_argument
    add("--weights", required=True, type=Path, metavar="FILE", help="the file to be read")
    add("--out", required=True, type=Path, metavar="FILE", help="the checkpoint to be written")
    add("--model", metavar="NAME|FILE", help="the model that it fits; YOLOv5's and torchvision's are found")
    names = "class names: COCO's, one on each line of a file, or 0 to K - 1 (default: those in the file, if any)"
    add("--names", metavar="coco|FILE|K", help=names)
    sizes = "side of the network input (default: that of --cfg, or 416; YOLOv5: 640; torchvision: 224)"
    add("--image-size", type=positive_int, metavar="S", help=sizes)
    cfg = "a Darknet file's configuration: its anchors, scale_x_y and input size are taken, its layers are compared"
    add("--cfg", type=Path, metavar="FILE", help=cfg)
    add(
        "--partial",
        action="store_true",
        help="accept a Darknet file that has only the first layers, or a classifier; the others start as in training",
    )
    return parser.parse_args()


def main() -> None:
    """Read, write, say what was done."""
    args = parse_arguments()
    wanted = Import(args.weights, args.out, args.model, args.names, args.image_size, args.partial, args.cfg)
    for line in import_weights(wanted):
        print(line)


if __name__ == "__main__":
    run_tool(main)
