"""Time of the forward pass of one image, model by model, in one run.

python benchmarks/forward.py --model A B ... [--image-size 320] [--num-classes 6] [--rounds 30] [--threads 1]

The models are timed in turn, in fp32 with channels last, as PyTorch runs them (no norm is melted into its convolution).
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from timing import alternate

from detect.cli.parser import positive_int
from detect.models.build import build_graph
from detect.models.graph import Graph
from detect.runtime.cli import run_tool


def forward(graph: Graph, image: torch.Tensor) -> None:
    """One pass without gradients."""
    with torch.inference_mode():
        graph(image)


def main() -> None:
    parser = argparse.ArgumentParser(description="the forward pass of one image, model by model")
    parser.add_argument("--model", required=True, nargs="+", metavar="NAME|FILE")
    parser.add_argument("--image-size", type=positive_int, default=320)
    parser.add_argument("--num-classes", type=positive_int, default=6)
    parser.add_argument("--rounds", type=positive_int, default=30)
    parser.add_argument("--threads", type=positive_int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    size = arguments.image_size
    image = torch.rand(1, 3, size, size).to(memory_format=torch.channels_last)
    graphs = {name: build_graph(name, arguments.num_classes).eval() for name in arguments.model}
    runs = {
        name: partial(forward, graph.to(memory_format=torch.channels_last), image) for name, graph in graphs.items()
    }
    seconds = alternate(runs, arguments.rounds)
    first = seconds[arguments.model[0]]
    print(f"{size} px, batch 1, {arguments.threads} thread(s), median of {arguments.rounds}, CPU ms")
    for name, measured in seconds.items():
        print(f"{name:<48}{measured * 1e3:>8.1f}{measured / first:>7.2f}")


if __name__ == "__main__":
    run_tool(main)
