"""From an image file to boxes: what each stage costs, in PyTorch, in ONNX Runtime and, if it is there, in OpenVINO.

python benchmarks/inference.py --weights FILE --source FOLDER [--image-size 640] [--batch-size 1] [--threads 1]

The file is exported first. Stages are those of ``Detector.predict``: decode, letterbox, network with decoding of its
output, non-maximum suppression with the way back to image pixels. *PyTorch, as trained* has its norms; ``Detector``
runs it without.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from detect.cli.parser import positive_int
from detect.data.images import read_image
from detect.data.letterbox import letterbox, pad_batch
from detect.evaluation.forward import run_network
from detect.evaluation.postprocess import PredictSettings, postprocess
from detect.exporting.onnx import export_onnx
from detect.inference.network import InferenceNetwork
from detect.inference.runtimes.exported import network_input
from detect.inference.runtimes.onnx_runtime import OnnxNetwork
from detect.inference.sources import expand_sources
from detect.inference.torch_network import TorchNetwork
from detect.models.checkpoint import Checkpoint, load_checkpoint
from detect.runtime.cli import run_tool

CPU = torch.device("cpu")
STAGES = ("decode", "letterbox", "network", "suppression")


class WithNorms(TorchNetwork):
    """The network as it was trained."""

    def predictions(self, images: np.ndarray) -> torch.Tensor:
        """As of ``InferenceNetwork``."""
        return run_network(self.checkpoint.detector, torch.from_numpy(images), CPU)


class OpenVinoNetwork(OnnxNetwork):
    """The exported file in OpenVINO."""

    def __init__(self, path: Path) -> None:
        import openvino

        super().__init__(path, "cpu")
        threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
        self._compiled = openvino.Core().compile_model(path, "CPU", threads)

    def predictions(self, images: np.ndarray) -> np.ndarray:
        """As of ``InferenceNetwork``."""
        found: np.ndarray = self._compiled({"images": network_input(images)})[0]
        return found


def one_pass(network: InferenceNetwork, paths: Sequence[Path], size: int) -> list[float]:
    """CPU seconds of each stage for one batch."""
    times = [time.process_time()]
    images = [read_image(path) for path in paths]
    times.append(time.process_time())
    placed = [letterbox(image, size) for image in images]
    batch = pad_batch([image for image, _ in placed], network.multiple)
    times.append(time.process_time())
    predictions = network.predictions(batch)
    times.append(time.process_time())
    postprocess(predictions, [placement for _, placement in placed], PredictSettings(), network.names)
    times.append(time.process_time())
    return np.diff(times).tolist()


def networks_of(checkpoint: Checkpoint, folder: Path) -> dict[str, InferenceNetwork]:
    """The ways to run it."""
    export_onnx(checkpoint, folder / "model.onnx")
    checkpoint.model.to(memory_format=torch.channels_last)
    networks: dict[str, InferenceNetwork] = {
        "PyTorch, as trained": WithNorms(checkpoint, CPU, "fp32"),
        "PyTorch": TorchNetwork(checkpoint, CPU, "fp32"),
        "ONNX Runtime": OnnxNetwork(folder / "model.onnx", "cpu"),
    }
    if importlib.util.find_spec("openvino"):
        networks["OpenVINO"] = OpenVinoNetwork(folder / "model.onnx")
    return networks


def main() -> None:
    parser = argparse.ArgumentParser(description="from an image file to boxes, stage by stage")
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--source", required=True)
    parser.add_argument("--image-size", type=positive_int, default=640)
    parser.add_argument("--batch-size", type=positive_int, default=1)
    parser.add_argument("--rounds", type=positive_int, default=10)
    parser.add_argument("--threads", type=positive_int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = [source.path for source in expand_sources(arguments.source) if source.path]
    paths = (images * arguments.batch_size)[: arguments.batch_size]
    with tempfile.TemporaryDirectory() as folder:
        networks = networks_of(load_checkpoint(arguments.weights), Path(folder))
        measured: dict[str, list[list[float]]] = {name: [] for name in networks}
        for number in range(arguments.rounds + 1):
            for name, network in networks.items():
                seconds = one_pass(network, paths, arguments.image_size)
                if number > 0:
                    measured[name].append(seconds)
    per_image = 1e3 / len(paths)
    print(f"{arguments.image_size} px, batch {len(paths)}, {arguments.threads} thread(s), CPU ms per image, median")
    print(f"ONNX Runtime {onnxruntime.__version__}, PyTorch {torch.__version__}")
    print(f"{'':<22}" + "".join(f"{stage:>13}" for stage in (*STAGES, "all")))
    for name, rounds in measured.items():
        stages = [statistics.median(column) * per_image for column in zip(*rounds, strict=True)]
        print(f"{name:<22}" + "".join(f"{value:>13.1f}" for value in (*stages, sum(stages))))


if __name__ == "__main__":
    run_tool(main)
