"""Time of the forward pass of one image, model by model, in PyTorch and ONNX Runtime, in one run.

python benchmarks/forward.py --model A B ... [--image-size 320] [--num-classes 6] [--rounds 30] [--threads 1]

fp32, norms fused, up to the raw maps of the head; PyTorch with channels last. All are timed in turn.
"""

from __future__ import annotations

import argparse
import io
import logging
from collections.abc import Callable

import onnxruntime
import torch
from timing import alternate
from torch import Tensor

from detect.cli.parser import positive_int
from detect.models.build import build_model
from detect.models.graph import Graph
from detect.models.model import fuse_conv_bn
from detect.runtime.cli import run_tool

Run = Callable[[], None]


def fused_graph(name: str, num_classes: int) -> Graph:
    """Return a model's graph with random weights, which cost as much as trained ones."""
    torch.manual_seed(0)
    return fuse_conv_bn(build_model(name, num_classes).eval()).graph


def onnx_bytes(graph: Graph, image: Tensor) -> bytes:
    file = io.BytesIO()
    torch.onnx.export(graph, (image,), file, dynamo=True, verbose=False)
    return file.getvalue()


def pytorch_pass(graph: Graph, image: Tensor) -> Run:
    """Return a pass over one image; it changes the graph's layout."""
    fast = graph.to(memory_format=torch.channels_last)
    fast_image = image.to(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode():
            fast(fast_image)

    return run


def onnx_runtime_pass(file: bytes, image: Tensor, threads: int) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: image.numpy()}
    return lambda: session.run(None, inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description="the forward pass of one image, model by model")
    parser.add_argument("--model", required=True, nargs="+", metavar="NAME|FILE")
    parser.add_argument("--image-size", type=positive_int, default=320)
    parser.add_argument("--num-classes", type=positive_int, default=6)
    parser.add_argument("--rounds", type=positive_int, default=30)
    parser.add_argument("--threads", type=positive_int, default=1)
    arguments = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)

    image = torch.rand(1, 3, arguments.image_size, arguments.image_size)
    runs: dict[tuple[str, str], Run] = {}
    for name in arguments.model:
        graph = fused_graph(name, arguments.num_classes)
        runs[name, "ONNX Runtime"] = onnx_runtime_pass(onnx_bytes(graph, image), image, arguments.threads)
        runs[name, "PyTorch"] = pytorch_pass(graph, image)
    seconds = alternate(runs, arguments.rounds)
    print(
        f"{arguments.image_size} px, batch 1, {arguments.threads} thread(s), median of {arguments.rounds}, CPU ms, "
        "beside each its ratio to the first model"
    )
    print(f"{'model':<48}{'PyTorch':>15}{'ONNX Runtime':>15}")
    for name in arguments.model:
        cells = ""
        for runtime in ("PyTorch", "ONNX Runtime"):
            own = seconds[name, runtime]
            cells += f"{own * 1e3:>8.1f}{own / seconds[arguments.model[0], runtime]:>7.2f}"
        print(f"{name:<48}{cells}")


if __name__ == "__main__":
    run_tool(main)
