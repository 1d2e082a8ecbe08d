"""Convert weights that others trained to a checkpoint, without running code from the file.

detect import --weights yolov3.weights --cfg yolov3.cfg --model yolov3 --names coco --out yolov3.pt
detect import --weights yolov5s.pt --out yolov5s-imported.pt
detect import --weights darknet53.conv.74 --partial --model yolov3 --names my.names --out start.pt
detect import --weights yolox_s.pth --out yolox-s-imported.pt
detect import --weights resnet50.pth --names imagenet.names --out resnet50-imported.pt
detect import --weights runs/mine/best.pt --model yolov5n-spd --out mine-spd.pt

Reads Darknet's .weights, and state dicts or pickled models (.pt, .pth, .th, .safetensors) of the YOLOv5 family, YOLOX
(also exported, .onnx), and, as classifiers, torchvision's ResNet, ResNeXt and DenseNet and ResNets for CIFAR. A
checkpoint of this toolkit becomes that of the space-to-depth form of its model. The file's content decides, not its
suffix. The weights keep the licence of their authors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detect.cli.output import print_lines
from detect.cli.parser import positive_int
from detect.runtime.startup import heavy_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--weights", required=True, type=Path, metavar="FILE", help="the file to read")
    add("--out", required=True, type=Path, metavar="FILE", help="the checkpoint to write")
    add("--model", metavar="NAME|FILE", help="the model of the weights; found for YOLOv5, YOLOX and torchvision")
    names = "class names: COCO's, one on each line of a file, or 0 to K - 1 (default: the file's; COCO's for YOLOX)"
    add("--names", metavar="coco|FILE|K", help=names)
    sizes = "side of the network input (default: that of --cfg, or 416; YOLOv5, YOLOX: 640; torchvision: 224)"
    add("--image-size", type=positive_int, metavar="S", help=sizes)
    cfg = "a Darknet file's configuration: its anchors, scale_x_y and input size are taken, its layers are compared"
    add("--cfg", type=Path, metavar="FILE", help=cfg)
    add(
        "--partial",
        action="store_true",
        help="accept a Darknet file with only the first layers, or a classifier; the other layers are initialised",
    )


def run(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.models.foreign.importing import ImportOptions, import_weights
    options = ImportOptions(args.weights, args.out, args.model, args.names, args.image_size, args.partial, args.cfg)
    print_lines(import_weights(options))
