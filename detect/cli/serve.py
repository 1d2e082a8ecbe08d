"""Show a detector as a local web page: images, a camera, boxes, and the cost slider of models trained with SDPoint.

detect serve --weights yolov5n-spd-bccd
detect serve --weights runs/mine/best.pt --port 8080
detect serve --weights model.onnx --host 0.0.0.0 --allow-host lab-pc

Only this machine can open the page unless --host says otherwise; then there is no password and no encryption.
Ctrl-C ends the server.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detect.cli.parser import add_computing, non_negative_int, positive_int
from detect.errors import InputError
from detect.runtime.startup import heavy_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--weights",
        required=True,
        type=Path,
        metavar="FILE|NAME",
        help="a detector: a checkpoint, an exported file, or a name in weights/",
    )
    add("--host", default="127.0.0.1", metavar="H", help="address to listen on; 0.0.0.0 for all (default: 127.0.0.1)")
    add("--port", type=non_negative_int, default=8000, metavar="P", help="0 is any free one (default: 8000)")
    add("--allow-host", nargs="+", default=[], metavar="NAME", help="names of this machine in the browser's address")
    add("--max-upload", type=positive_int, default=32, metavar="MIB", help="limit of an image file (default: 32)")
    add(
        "--max-waiting", type=positive_int, default=8, metavar="N", help="images at a time; others get 503 (default: 8)"
    )
    add_computing(parser)


def run(args: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C or SIGTERM, which are the way to end it: exit code 0."""
    with heavy_imports():
        from detect.inference.detector import Detector
        from detect.inference.opening import open_network
        from detect.runtime.logs import LOGGER
        from detect.runtime.threads import use_threads
        from detect.serving.app import Limits, build_app
        from detect.serving.predictions import ServedDetector
        from detect.serving.server import address_of, is_local, listen, require_framework, serve

        require_framework()
    use_threads(args.threads)
    with listen(args.host, args.port) as listener:
        network = open_network(args.weights, args.device, args.precision)
        if network.is_classifier:
            raise InputError(f"{args.weights}: is a classifier; detect serve is for detectors")
        served = ServedDetector(Detector(network), args.weights)
        limits = Limits(upload_bytes=args.max_upload * 2**20, waiting=args.max_waiting)
        app = build_app(served, limits, (args.host, *args.allow_host))
        if not is_local(listener):
            LOGGER.warning("--host %s: everybody who reaches this machine can use the model", args.host)
        print(
            f"{args.weights} on {network.device_name}: {address_of(listener, args.host)} (Ctrl-C ends it)", flush=True
        )
        serve(app, listener)
