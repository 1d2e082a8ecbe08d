from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detect.data.letterbox import letterbox, pad_batch
from detect.errors import InputError
from detect.models.build import build_model
from detect.models.foreign.onnx_weights import read_convolutions
from detect.models.foreign.yolox import load_yolox, load_yolox_export, parts_of
from detect.models.model import DetectionModel
from tests.models.foreign.yolox_files import NANO, TINY, convolutions, random_state, write_export

HERE = Path("x.pth")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_state()


def decoded(model: DetectionModel, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval().decode(model(images))


# --------------------------------------------------------------------------------------- published weights


def test_the_published_file(real_data: Path) -> None:
    """Boxes in cells and probabilities are those of ONNX Runtime, on photographs and on noise."""
    path = real_data / "yolox" / "yolox_nano.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    model = load_yolox_export(read_convolutions(path), path).eval()
    assert (model.definition.name, model.num_classes) == ("yolox-nano", 80)
    photos = sorted((real_data / "tiny_coco").rglob("*.jpg"))[:2]
    images = [letterbox(cv2.imread(str(photo)), 416)[0] for photo in photos]
    images.append(np.random.default_rng(0).integers(0, 256, (416, 416, 3), np.uint8))
    for bgr in images:
        square = pad_batch([bgr], shape_hw=(416, 416))
        expected = session.run(None, {"images": square.transpose(0, 3, 1, 2).astype(np.float32)})[0]
        ours = torch.from_numpy(np.ascontiguousarray(square[..., ::-1].transpose(0, 3, 1, 2))).float() / 255
        with torch.no_grad():
            raw = [y.flatten(1, 3) for y in model(ours)]  # (B, H * W, 85) of each level
        found = torch.cat([torch.cat([y[..., :4], y[..., 4:].sigmoid()], dim=-1) for y in raw], dim=1)
        np.testing.assert_allclose(found.numpy()[..., 4:], expected[..., 4:], atol=1e-4)
        # The file's offsets and logarithms of sides; far from objects they are large, and nothing trained them.
        likely = expected[0, :, 4] > 0.01
        np.testing.assert_allclose(found.numpy()[0, likely, :4], expected[0, likely, :4], atol=1e-4)


def test_their_names(state: dict[str, Tensor]) -> None:
    """A few names and shapes of the published nano, to pin the tests' own writer."""
    assert state["backbone.backbone.stem.conv.conv.weight"].shape == (16, 12, 3, 3)
    assert state["backbone.backbone.dark2.0.dconv.conv.weight"].shape == (16, 1, 3, 3)
    assert state["backbone.backbone.dark3.1.m.2.conv2.pconv.bn.running_var"].shape == (32,)
    assert state["backbone.backbone.dark5.1.conv2.conv.weight"].shape == (256, 512, 1, 1)
    assert state["backbone.C3_n3.conv3.bn.weight"].shape == (128,)
    assert state["head.cls_convs.2.1.dconv.conv.weight"].shape == (64, 1, 3, 3)
    assert state["head.obj_preds.0.weight"].shape == (1, 64, 1, 1)


@pytest.mark.parametrize(("name", "size"), [("yolox-nano", NANO), ("yolox-tiny", TINY)])
def test_the_order_is_theirs(name: str, size: tuple[float, float, bool]) -> None:
    """By which the convolutions of an exported file are told apart."""
    model = build_model(name, 3)
    assert [part.theirs for part in parts_of(model)] == [name for name, *_ in convolutions(*size, 3)]


@pytest.mark.parametrize(("name", "size"), [("yolox-nano", NANO), ("yolox-tiny", TINY)])
def test_state_dicts(name: str, size: tuple[float, float, bool]) -> None:
    """Every value stands where it belongs; the member of the family is found."""
    given = random_state(size)
    model = load_yolox(given, HERE)
    assert (model.definition.name, model.num_classes) == (name, 3)
    ours = model.state_dict()
    divide = ours["graph.layers.c3.divide.conv.weight"]
    first, second = (given[f"backbone.backbone.dark3.1.{word}.conv.weight"] for word in ("conv1", "conv2"))
    assert torch.equal(divide, torch.cat([first, second]))
    boxes = [given[f"head.{word}_preds.1.bias"] for word in ("reg", "obj")]
    assert torch.equal(ours["graph.layers.detect.boxes.1.bias"], torch.cat(boxes))
    assert torch.equal(ours["graph.layers.p5.fuse.norm.running_var"], given["backbone.C3_n4.conv3.bn.running_var"])
    taken = {id(part) for part in parts_of(model)}
    assert len(taken) == len(list(convolutions(*size, 3)))


def test_an_export_is_the_same_function(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """The state dict's, whose norms were folded."""
    write_export(tmp_path / "x.onnx", state)
    found = load_yolox_export(read_convolutions(tmp_path / "x.onnx"), tmp_path / "x.onnx")
    images = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(decoded(found, images), decoded(load_yolox(state, HERE), images), rtol=1e-3, atol=1e-3)


def test_the_stem_reads_our_pixels(state: dict[str, Tensor]) -> None:
    """Theirs reads blue, green and red from 0 to 255, each pixel of a 2 x 2 block: top left, bottom left, top right."""
    images = torch.rand(1, 3, 8, 8)
    theirs = images.flip(1) * 255
    blocks = [theirs[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
    stem = {key.removeprefix("backbone.backbone.stem.conv."): value for key, value in state.items() if ".stem." in key}
    y = F.conv2d(torch.cat(blocks, dim=1), stem["conv.weight"], padding=1)
    norm = (stem[f"bn.{word}"] for word in ("running_mean", "running_var", "weight", "bias"))
    expected = F.silu(F.batch_norm(y, *norm, eps=1e-3))
    with torch.no_grad():
        found = load_yolox(state, HERE).eval().graph.layers["stem"](images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (
            lambda s: s.pop("head.obj_preds.2.bias"),
            None,
            r"^x\.pth: fits none of yolox-nano, .*; nearest is yolox-nano: the file has nothing for head\.obj_p",
        ),
        (
            lambda s: s.update({"head.iou_preds.0.weight": torch.zeros(1)}),
            None,
            r"nearest is yolox-nano: the model has nothing for 'head\.iou_preds\.0\.weight'$",
        ),
        (
            lambda s: s.update({"head.reg_preds.0.weight": torch.zeros(8, 64, 1, 1)}),
            None,
            r"head\.reg_preds\.0\.weight is \(8, 64, 1, 1\), must be \(4, 64, 1, 1\)$",
        ),
        (
            lambda s: s,
            "yolox-s",
            r"^x\.pth: weights of another model than yolox-s: .*stem\.conv\.conv\.weight is \(16, 12",
        ),
        (
            lambda s: s,
            "yolox-nano+depth=3",
            r"the file has nothing for backbone\.backbone\.dark2\.1\.m\.1\.conv1\.conv\.w",
        ),
        (lambda s: s, "yolov5n", r"^yolov5n: neck\.spp: the YOLOX family has no such SPPF$"),
        (lambda s: s["backbone.C3_p3.conv1.bn.weight"].fill_(torch.nan), None, r"is not finite"),
        (lambda s: s["backbone.C3_p3.conv1.bn.running_var"].fill_(-1), None, r"has a negative variance"),
    ],
)
def test_refused(
    state: dict[str, Tensor], change: Callable[[dict[str, Tensor]], object], name: str | None, message: str
) -> None:
    given = {key: value.clone() for key, value in state.items()}
    change(given)
    with pytest.raises(InputError, match=message):
        load_yolox(given, HERE, name)


def test_exports_that_do_not_fit(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "x.onnx"
    write_export(path, state, count=100)
    with pytest.raises(
        InputError, match=r"nearest is yolox-nano: the file has nothing for head\.obj_preds\.1\.weight$"
    ):
        load_yolox_export(read_convolutions(path), path)
    write_export(path, state)
    with pytest.raises(InputError, match=r"^.*x\.onnx: weights of another model than yolox-tiny: "):
        load_yolox_export(read_convolutions(path), path, "yolox-tiny")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"x\.onnx: is not an ONNX file, or is damaged$"):
        read_convolutions(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"x\.onnx: has no convolutions$"):
        read_convolutions(path)
    with pytest.raises(InputError, match=r"none\.onnx: cannot be read: No such file or directory$"):
        read_convolutions(tmp_path / "none.onnx")
