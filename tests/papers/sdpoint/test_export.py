"""Exported instances: what each file computes, what the files share, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from detect import Detector
from detect.api.exporting import ExportRequest, run_export
from detect.errors import InputError
from detect.exporting import instances as exporting
from detect.exporting.instances import WEIGHTS, _chosen, export_instances
from detect.exporting.onnx_runner import OnnxModel
from detect.exporting.options import ExportOptions
from detect.inference import timing
from detect.models.build import build_classifier
from detect.models.checkpoint import rewrite_checkpoint
from detect.models.model import affine_norms, fuse_conv_bn
from detect.papers.sdpoint.instances import instances_in, menu_of, with_instances
from detect.papers.sdpoint.transform import PLAIN, Instance, instance_of, use_instance
from tests.models.yamls import write_model
from tests.papers.sdpoint.samples import detector

SQUARE = ExportOptions(dynamic=False)
BINARY = """\
name: tiny-classifier
scale: {channel_multiple: 1}
conv: {kind: bdsc, p: 0.6}
backbone:
  - {name: stem, module: Conv, args: {out_channels: 6, kernel_size: 3}}
  - {name: down, module: Conv, args: {out_channels: 8, kernel_size: 3, stride: 2}}
head:
  - {name: classify, module: Classify}
"""


def test_norms_as_factors_and_summands(tmp_path: Path) -> None:
    """The same function; kernels are the model's own, whatever the norms' statistics."""
    checkpoint = detector(tmp_path)
    model, images = checkpoint.detector, torch.rand(2, 3, 32, 32)
    kernels = {}
    for instance in (PLAIN, Instance(1, 0.5)):
        use_instance(model, instance)
        changed = affine_norms(model)
        kernels[instance] = {name: p for name, p in changed.named_parameters() if name.endswith("conv.weight")}
        with torch.inference_mode():
            for found, expected in zip(changed(images), model(images), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in changed.modules())
    plain, other = kernels.values()
    assert len(plain) > 5
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_norms_of_binary_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_classifier(str(write_model(tmp_path, BINARY)), num_classes=3).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    images = torch.rand(2, 3, 16, 16)
    with torch.inference_mode():
        expected = fuse_conv_bn(model)(images)
        torch.testing.assert_close(affine_norms(model)(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # 2@0.5 is on no front; the plain network is on none either, since 2@0.75 is better.
        (["all"], ["plain", "1@0.5", "1@0.75", "2@0.75"]),
        (["2@0.5"], ["plain", "2@0.5"]),
        (["2@0.5", "1@0.5", "plain"], ["plain", "1@0.5", "2@0.5"]),
        (["2@0.5", "all"], ["plain", "1@0.5", "1@0.75", "2@0.5", "2@0.75"]),
    ],
)
def test_chosen_instances(tmp_path: Path, names: list[str], expected: list[str]) -> None:
    assert _chosen(menu_of(detector(tmp_path)), names) == expected


def test_what_is_refused(tmp_path: Path) -> None:
    checkpoint, out = detector(tmp_path), tmp_path / "out"
    for options in (ExportOptions(), replace(SQUARE, masks="packed")):
        with pytest.raises(InputError, match=r"^--instances: files of one square image, with ordinary weights; no"):
            export_instances(checkpoint, out, ["all"], options)
    with pytest.raises(InputError, match=r"^instance 9@0\.5: is unknown; did you mean"):
        export_instances(checkpoint, out, ["9@0.5"], SQUARE)
    with pytest.raises(InputError, match="image size: must be a multiple of 4"):
        export_instances(checkpoint, out, ["all"], replace(SQUARE, image_size=30))
    unmeasured = with_instances(checkpoint, replace(instances_in(checkpoint), records=()))
    with pytest.raises(InputError, match="before the checkpoint's instances are measured: detect val"):
        export_instances(unmeasured, out, ["all"], SQUARE)
    with pytest.raises(InputError, match="has no instances, because it was trained without SDPoint"):
        export_instances(replace(checkpoint, extras={}), out, ["all"], SQUARE)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="full: exists already and is not an empty folder; name a new one"):
        export_instances(checkpoint, tmp_path / "full", ["all"], SQUARE)
    with pytest.raises(InputError, match=r"^--instances: not together with --cost, which is for a single file$"):
        run_export(ExportRequest(tmp_path / "x.pt", out, cost=0.5, instances=["all"]))
    with pytest.raises(InputError, match=r"^--instances: not together with --int8; --cost exports one instance as an"):
        run_export(ExportRequest(tmp_path / "x.pt", out, int8=True, data="shapes", instances=["all"]))
    assert not out.exists()


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "write_graph", stop)
    with pytest.raises(KeyboardInterrupt):
        export_instances(detector(tmp_path), tmp_path / "out", ["all"], SQUARE)
    assert [path.name for path in tmp_path.iterdir() if path.name != "model.yaml"] == []


@pytest.mark.slow
def test_a_folder_is_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each instance finds what it finds in PyTorch, on squares; the kernels are stored once, for all of them."""
    monkeypatch.setattr(timing, "MAX_ROUNDS", 1)
    checkpoint = detector(tmp_path, way="shrink")
    rewrite_checkpoint(tmp_path / "slider.pt", checkpoint)
    exported = run_export(ExportRequest(tmp_path / "slider.pt", tmp_path / "out", instances=["1@0.5"]))
    assert sorted(path.name for path in exported.path.iterdir()) == [
        *("1@0.5.onnx", "onnx_runner.py", "plain.onnx", WEIGHTS)
    ]
    places = []
    for name in ("plain", "1@0.5"):
        model = onnx.load(exported.path / f"{name}.onnx", load_external_data=False)
        external = [tensor for tensor in model.graph.initializer if tensor.external_data]
        places.append({tensor.name: {e.key: e.value for e in tensor.external_data}["offset"] for tensor in external})
    shared = places[0].keys() & places[1].keys()
    assert shared
    assert all(places[0][name] == places[1][name] for name in shared)
    assert OnnxModel(str(exported.path / "1@0.5.onnx")).fixed_hw == (32, 32)  # ONNX Runtime finds the weights
    files, torch_one = Detector(exported.path), Detector(tmp_path / "slider.pt", device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    for cost in (1, 0.25, 1):
        files.cost = torch_one.cost = cost
        assert files.cost == torch_one.cost == cost
        found, expected = (np.asarray(one.network.predictions(images)) for one in (files, torch_one))
        np.testing.assert_allclose(found, expected, atol=1e-3)
    assert instance_of(checkpoint.model) == PLAIN
