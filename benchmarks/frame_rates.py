"""Frames per second of the detectors of CSPNet's Table 5 on one thread: PyTorch, ONNX Runtime, OpenCV DNN.

python benchmarks/frame_rates.py [--rounds 10] [--json docs/results/csp-table-5.json]

The networks have random weights, which cost as much as trained ones; norms are fused, and what is timed ends at the raw
maps of the head. All are timed in turn; a rate is that of the CPU time of the process, so that other programs disturb
it little. Prints the rates beside the paper's (OpenCV DNN on an Intel Core i9-9900K) and says how far the order agrees.
"""

from __future__ import annotations

import argparse
import json
import logging
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import torch
from forward import Run, fused_graph, onnx_bytes, onnx_runtime_pass, pytorch_pass
from timing import alternate

from detect.cli.parser import positive_int
from detect.papers.tables.tables import PaperRow, load_table
from detect.runtime.cli import run_tool

TABLE, PAPER = "csp-table-5", "CPU"
RUNTIMES = ("PyTorch", "ONNX Runtime", "OpenCV DNN")


def open_row(row: PaperRow, num_classes: int) -> dict[str, Run]:
    """Return a pass of a row's model over one image in each runtime."""
    assert row.model is not None, "the caller skips rows without a model"
    assert row.image_size is not None, "a row with a model has one"
    graph = fused_graph(row.model, num_classes)
    image = torch.rand(1, 3, row.image_size, row.image_size)
    array = image.numpy()
    file = onnx_bytes(graph, image)
    net = cv2.dnn.readNetFromONNX(np.frombuffer(file, np.uint8))
    outputs = net.getUnconnectedOutLayersNames()

    def in_opencv() -> None:
        net.setInput(array)
        net.forward(outputs)

    passes = (pytorch_pass(graph, image), onnx_runtime_pass(file, image, threads=1), in_opencv)
    return dict(zip(RUNTIMES, passes, strict=True))


def agreement(paper: list[float], ours: list[float]) -> tuple[int, int]:
    """Return how many pairs with different rates in the paper have the same order here, and how many there are."""
    pairs = [(a, b) for a, b in combinations(range(len(paper)), 2) if paper[a] != paper[b]]
    return sum((paper[a] < paper[b]) == (ours[a] < ours[b]) for a, b in pairs), len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description="frames per second of the detectors of CSPNet's Table 5")
    parser.add_argument("--rounds", type=positive_int, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rates for detect reproduce csp-table-5")
    arguments = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    table = load_table(TABLE)
    rows = [row for row in table.rows if row.model is not None]
    runs = {(row.label, name): run for row in rows for name, run in open_row(row, table.num_classes).items()}
    seconds = alternate(runs, arguments.rounds)
    rates = {row.label: {name: 1 / seconds[row.label, name] for name in RUNTIMES} for row in rows}
    print(f"frames per second, one thread, median of {arguments.rounds}; the paper's: {PAPER}")
    print(f"{'':<32}{'px':>5}{'paper':>8}" + "".join(f"{name:>15}" for name in RUNTIMES))
    for row in rows:
        cells = "".join(f"{rates[row.label][name]:>15.1f}" for name in RUNTIMES)
        print(f"{row.label:<32}{row.image_size:>5}{row.paper.get(PAPER, float('nan')):>8.0f}{cells}")
    known = [row for row in rows if PAPER in row.paper]
    for name in RUNTIMES:
        same, count = agreement([row.paper[PAPER] for row in known], [rates[row.label][name] for row in known])
        print(f"order as in the paper, {name}: {same} of {count} pairs")
    if arguments.json is not None:
        rounded = {label: {name: round(rate, 1) for name, rate in values.items()} for label, values in rates.items()}
        arguments.json.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_tool(main)
