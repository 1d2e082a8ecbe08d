"""Exports that several tests share: PyTorch's exporter takes seconds for each graph."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch

from detect.evaluation.postprocess import PredictSettings
from detect.exporting import onnx as export_module
from detect.exporting.converters import CONVERTERS
from detect.exporting.onnx import export_onnx
from detect.exporting.options import ExportOptions
from detect.exporting.parity import Parity
from detect.inference.runtimes.formats import FORMATS
from detect.models.build import build_classifier, build_model
from detect.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.exporting.lively import enliven, find_everywhere
from tests.models.yamls import write_model

DETECTOR = """\
name: tiny-detector
backbone:
  - {name: stem, module: Conv, args: {out_channels: 8, kernel_size: 3, stride: 2}, reduction: 2}
  - {name: down2, module: Conv, args: {out_channels: 16, kernel_size: 3, stride: 2}, reduction: 4}
  - {name: down3, module: Conv, args: {out_channels: 16, kernel_size: 3, stride: 2}, reduction: 8}
head:
  - name: detect
    module: AnchorDetect
    from: [down2, down3]
    args: {anchors_px: [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 60]]]}
"""
"""Two levels of three anchors, at 4 and 8 px."""
CLASSIFIER = """\
name: tiny-classifier
scale: {channel_multiple: 1}
conv: {kind: bdsc, p: 0.6}
defaults: {downsample: spd}
backbone:
  - {name: stem, module: Conv, args: {out_channels: 6, kernel_size: 3}}
  - {name: down, module: Downsample, args: {out_channels: 5}}
  - {name: c5, module: Conv, args: {out_channels: 24, kernel_size: 3}}
head:
  - {name: classify, module: Classify}
"""
"""Binary weights, also behind a space-to-depth, where a convolution takes pieces."""
NAMES = ("cat", "dög", 'a "b"')
SUPPRESSED = ExportOptions(image_size=96, suppression=PredictSettings(0.2, 0.5, 40))
KINDS = {
    "exported": ExportOptions(),
    "suppressed": SUPPRESSED,
    "raw": ExportOptions(image_size=96, raw=True),
    "folded": ExportOptions(),
    "packed": ExportOptions(masks="packed"),
}
"""Options of the shared files; the last two are of the classifier."""

_write = export_module._write


def _write_once(wrapper, path: Path, options: ExportOptions) -> None:
    """The exporter's file; the same network with the same options is exported once by all processes of the session."""
    digest = hashlib.sha256()
    for name, tensor in wrapper.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    size = None if options.dynamic else options.image_size
    digest.update(repr((type(wrapper), options.opset, options.dynamic, options.half, size)).encode())
    made = Path(os.environ["DETECT_TEST_EXPORTS"]) / digest.hexdigest()
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            _write(wrapper, made.with_suffix(".part"), options)
            made.with_suffix(".part").rename(made)
    shutil.copy(made, path)


@contextmanager
def exporter_once() -> Iterator[None]:
    """Inside, PyTorch's exporter runs once for each network; what follows it runs each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, "_write", _write_once)
        yield


def require_converter(name: str) -> None:
    """Skip a test where a format's runtime or converter is not installed; none is imported, OpenVINO has telemetry."""
    packages = (*FORMATS[name].packages, *CONVERTERS[name].packages)
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")


@cache
def detector() -> Checkpoint:
    """A detector whose outputs depend on its input, as a trained one's do and a fresh one's do not."""
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model = build_model(str(write_model(Path(folder), DETECTOR)), num_classes=3).train()
        enliven(model)
        find_everywhere(model)
        path = Path(folder) / "model.pt"
        facts = {"category_ids": (3, 9, 90), "image_size": 96, "metrics": {}, "provenance": {}}
        save_checkpoint(path, model, names=NAMES, **facts)
        return load_checkpoint(path)


@cache
def classifier() -> Checkpoint:
    """A small classifier with binary weights and with norms as after a training; some of their factors are negative."""
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model = build_classifier(str(write_model(Path(folder), CLASSIFIER)), num_classes=3).train()
        model.normalise_by((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
        enliven(model, negative=0.3)
        path = Path(folder) / "model.pt"
        facts = {"category_ids": (0, 1, 2), "image_size": 32, "metrics": {}, "provenance": {}, "training": {}}
        save_checkpoint(path, model, names=NAMES, center_crop=0.8, **facts)
        return load_checkpoint(path)


@cache
def export(kind: str) -> tuple[bytes, Parity]:
    """A file of ``KINDS``, and its parity."""
    checkpoint = classifier() if kind in ("folded", "packed") else detector()
    with tempfile.TemporaryDirectory() as folder, exporter_once():
        path = Path(folder) / "model.onnx"
        parity = export_onnx(checkpoint, path, KINDS[kind])
        return path.read_bytes(), parity
