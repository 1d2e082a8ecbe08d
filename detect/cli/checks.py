"""Print versions, extras and hardware, in a form to paste into a bug report.

detect checks
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
from typing import Any

import detect
from detect.cli.output import print_json
from detect.runtime.startup import heavy_imports

LIBRARIES = (
    *("torch", "torchvision", "numpy", "opencv-python-headless", "opencv-python", "pillow", "albumentations"),
    *("pycocotools", "matplotlib", "onnx", "psutil", "pyyaml", "safetensors", "tensorboard"),
)
EXTRAS = {
    "export": ("onnxruntime", "onnxscript"),
    "openvino": ("openvino",),
    "ncnn": ("ncnn", "pnnx"),
    "litert": ("ai-edge-litert", "litert-torch"),
    "fast": ("hotcoco",),
    "hub": ("huggingface_hub",),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "sahi": ("sahi",),
    "serve": ("starlette", "uvicorn"),
    "sweep": ("optuna",),
    "track": ("trackers", "supervision"),
}
"""Distributions of each extra in setup.cfg."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    facts = {
        "detect": detect.__version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        **{name: found for name in LIBRARIES if (found := version(name))},
        **{f"extra {name}": _extra(packages) for name, packages in EXTRAS.items()},
        **_machine(),
    }
    if args.json:
        print_json(facts)
        return
    width = max(map(len, facts))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in facts.items()))


def version(distribution: str) -> str | None:
    """Return the version of an installed distribution without importing it; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _extra(packages: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {version(name) or 'not installed'}" for name in packages)


def _machine() -> dict[str, Any]:
    with heavy_imports():
        import psutil
        import torch

        from detect.runtime.device import choose_precision, select_device
        from detect.runtime.processor import describe_processor
    device = select_device("auto")
    memory = psutil.virtual_memory()
    facts = {
        "processor": describe_processor().line(),
        "device": str(device),
        "precision": f"auto is {choose_precision('auto', device)}",
        "cores": f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} usable",
        "threads": torch.get_num_threads(),
        "memory": f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free",
        "disk": f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free here",
    }
    for number in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(number)
        facts[f"cuda:{number}"] = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    return facts
