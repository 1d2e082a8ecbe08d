"""tools/import_weights.py as a user runs it."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint
from detect.models.foreign.class_names import COCO_IDS, COCO_NAMES
from detect.models.foreign.darknet import darknet_layers
from tests.models.foreign.torchvision_files import assert_computes_the_same, random_classifier, zeros
from tests.models.foreign.yolov5_files import random_model, their_state, write_pickled_model, write_safetensors
from tests.models.foreign.yolox_files import random_state, write_export
from tests.tools.running import Ended, run_here

# The stem has 4 values in each of the norm's tensors and 4*3 weights: 28. The head has 2 classes: 7 outputs, each of 4
# weights and a bias: 35.
SMALL = """
name: small
backbone:
  - {name: stem, module: Conv, args: {out_channels: 4, stride: 2}}
head:
  - {name: detect, module: AnchorDetect, args: {anchors_px: [[[4, 4]]]}}
"""
COUNT = 28 + 35


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small model, Darknet weights for two classes of it, and their names."""
    (tmp_path / "small.yaml").write_text(SMALL)
    write_darknet(tmp_path / "small.weights", COUNT)
    (tmp_path / "two.names").write_text("left\nright\n\n")
    return tmp_path


def write_darknet(path: Path, count: int) -> None:
    """Weights 0, 1, 2, ..."""
    path.write_bytes(struct.pack("<3iq", 0, 2, 5, 12_800) + np.arange(count, dtype="<f4").tobytes())


def import_here(folder: Path, *words: object) -> Ended:
    return run_here(folder, "import_weights.py", "--out", "out.pt", *words)


ASSUMED = "anchors 4x4 px, scale_x_y 2: assumed, those of small, for the file does not say them; --cfg FILE reads them"
SMALL_WORDS = ("--weights", "small.weights", "--model", "small.yaml", "--names", "two.names")


# ------------------------------------------------------------------------------------------------------ Darknet


def test_darknet(folder: Path) -> None:
    ended = import_here(folder, *SMALL_WORDS)
    assert (ended.code, ended.error) == (0, "")
    assert ended.output.splitlines() == [
        f"small.weights: Darknet 0.2.5, 12,800 images seen, 2 of 2 layers; {ASSUMED}",
        "out.pt: small, 2 classes, 416 px, 55 parameters",  # 63 less the 8 statistics
    ]
    found = load_checkpoint(folder / "out.pt")
    assert (found.names, found.category_ids, found.image_size) == (("left", "right"), (0, 1), 416)
    state = found.model.graph.layers.state_dict()
    assert state["stem.norm.running_var"].tolist() == [12, 13, 14, 15]
    assert state["detect.predict.0.weight"].flatten().tolist() == list(range(35, 63))
    origin = found.provenance["imported_from"]
    assert origin["file"] == "small.weights"
    assert origin["sha256"] == hashlib.sha256((folder / "small.weights").read_bytes()).hexdigest()
    assert (origin["format"], origin["version"], origin["images_seen"]) == ("darknet", "0.2.5", 12_800)


def test_a_shipped_model_bit_by_bit(folder: Path) -> None:
    """Written layer by layer, read by the tool, compared tensor by tensor."""
    torch.manual_seed(0)
    model = build_model("yolov3-tiny+width=0.25", 80)
    layers = darknet_layers(model.graph)
    for layer in layers:
        for tensor in layer.tensors:
            tensor.data.copy_(torch.rand(tensor.shape))
    values = [tensor.detach().numpy().astype("<f4").tobytes() for layer in layers for tensor in layer.tensors]
    (folder / "x.weights").write_bytes(struct.pack("<3iq", 0, 2, 0, 1) + b"".join(values))
    words = ("--weights", "x.weights", "--model", "yolov3-tiny+width=0.25", "--names", "coco", "--image-size", 320)
    ended = import_here(folder, *words)
    assert ended.code == 0, ended.error
    found = load_checkpoint(folder / "out.pt")
    assert (found.names, found.category_ids, found.image_size) == (COCO_NAMES, COCO_IDS, 320)
    expected = model.state_dict()
    for name, tensor in found.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


CFG = """
[net]
width=64
height=32
[convolutional]
batch_normalize=1
filters=4
stride=2
activation=leaky
[convolutional]
filters=7
activation=linear
[yolo]
anchors=6,7
classes=2
scale_x_y=1.2
"""


def test_a_configuration_says_what_the_file_does_not(folder: Path) -> None:
    """Anchors, reach and input size are the configuration's; another structure or number of classes is refused."""
    text = SMALL.replace("stride: 2}", "stride: 2, activation: leaky}").replace(
        "{anchors_px", "{coding: yolov3, anchors_px"
    )
    (folder / "small.yaml").write_text(text)
    (folder / "small.cfg").write_text(CFG)
    ended = import_here(folder, *SMALL_WORDS, "--cfg", "small.cfg")
    assert ended.output.splitlines()[0] == (
        "small.weights: Darknet 0.2.5, 12,800 images seen, 2 of 2 layers; anchors 6x7 px, scale_x_y 1.2: of small.cfg, "
        "whose 2 layers with weights are those of small; its input of 64 x 32 px becomes 64 px"
    ), ended.error
    found = load_checkpoint(folder / "out.pt")
    assert found.detector.head.anchors_px.tolist() == [[[6, 7]]]
    assert (found.detector.head.codings[0].xy_scale, found.image_size) == (1.2, 64)
    assert found.provenance["imported_from"]["cfg"]["file"] == "small.cfg"
    (folder / "small.cfg").write_text(CFG.replace("stride=2", "stride=1"))
    message = "small.cfg: line 5, section 0 [convolutional]: stride is 1, but 2 in small (layers.stem)"
    assert import_here(folder, *SMALL_WORDS, "--cfg", "small.cfg").complaint == f"error: {message}"
    (folder / "small.cfg").write_text(CFG.replace("classes=2", "classes=80"))
    complaint = import_here(folder, *SMALL_WORDS, "--cfg", "small.cfg").complaint
    assert "section 2 [yolo]: has 80 classes, but 2 names are given" in complaint
    assert "--cfg: describes a whole" in import_here(folder, *SMALL_WORDS, "--cfg", "small.cfg", "--partial").complaint
    torch.save({"a": torch.zeros(2)}, folder / "x.pt")
    assert "--cfg: is for Darknet's" in import_here(folder, "--weights", "x.pt", "--cfg", "small.cfg").complaint


def test_the_kind_is_in_the_content(folder: Path) -> None:
    """A Darknet file that is called .pt, a state dict that is called .weights."""
    (folder / "small.weights").rename(folder / "small.pt")
    assert import_here(folder, *SMALL_WORDS, "--weights", "small.pt").code == 0
    torch.save({"features.0.weight": torch.zeros(2)}, folder / "vgg.weights")
    assert "are of no known family" in import_here(folder, "--weights", "vgg.weights", "--names", 2).complaint


def test_a_part_of_a_model(folder: Path) -> None:
    """The rest starts the same each time, and the tool says what it left out."""
    write_darknet(folder / "start.conv.1", 28)
    write_darknet(folder / "classifier.weights", 28 + 5 * 1000)  # 1000 classes of 4 weights and a bias
    states = []
    for name, rest in [
        ("start.conv.1", ""),
        ("classifier.weights", "; a classifier's last layer of 1,000 classes was left out"),
    ]:
        ended = import_here(folder, *SMALL_WORDS, "--weights", name, "--partial")
        line = f"{name}: Darknet 0.2.5, 12,800 images seen, 1 of 2 layers, up to layers.stem; "
        assert ended.output.splitlines()[0] == f"{line}the others start as in training{rest}"
        states.append(load_checkpoint(folder / "out.pt").model.state_dict())
    assert states[0]["graph.layers.stem.conv.weight"].flatten().tolist() == list(range(16, 28))
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


# ------------------------------------------------------------------------------------------------------- YOLOv5


def test_yolov5(folder: Path) -> None:
    model = random_model("yolov5n", 2)
    write_pickled_model(folder / "theirs.pt", their_state(model), names={0: "cat", 1: "dog"})
    ended = import_here(folder, "--weights", "theirs.pt")
    assert (ended.code, ended.error) == (0, "")
    assert ended.output.splitlines() == [
        "theirs.pt: 349 tensors of the YOLOv5 family, yolov5n",
        f"out.pt: yolov5n, 2 classes, 640 px, {sum(p.numel() for p in model.parameters()):,} parameters",
    ]
    found = load_checkpoint(folder / "out.pt")
    assert found.names == ("cat", "dog")
    (folder / "turned.names").write_text("dog\ncat\n")
    message = (
        "--names: are the class names of theirs.pt in another order; the file's weights have their own: leave it out"
    )
    assert (
        import_here(folder, "--weights", "theirs.pt", "--model", "yolov5n", "--names", "turned.names").complaint
        == f"error: {message}"
    )
    ended = import_here(folder, "--weights", "theirs.pt", "--model", "yolov5n", "--names", "two.names")
    assert "--names renames 2 of the file's 2 classes: 'cat' is now 'left'; 'dog' is now 'right'" in ended.output
    assert found.provenance["imported_from"]["format"] == "yolov5"
    expected = model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.model.state_dict().items())


@pytest.mark.slow
def test_yolov5_without_names(folder: Path) -> None:
    write_safetensors(folder / "theirs.safetensors", their_state(random_model("yolov5n", 2)))
    assert (
        "--names: is needed, because theirs.safetensors has none"
        in import_here(folder, "--weights", "theirs.safetensors", "--model", "yolov5n").complaint
    )
    assert import_here(folder, "--weights", "theirs.safetensors", "--model", "yolov5n", "--names", 2).code == 0
    assert load_checkpoint(folder / "out.pt").names == ("0", "1")
    ended = import_here(folder, "--weights", "theirs.safetensors", "--model", "yolov5n", "--names", "coco")
    assert ended.complaint == "error: theirs.safetensors: has 2 classes, but 80 names are given"


# -------------------------------------------------------------------------------------------------- torchvision


@pytest.mark.parametrize(
    ("name", "file", "tensors", "parameters"),
    [
        # 20 convolutions, each with a norm of 4 values and a counter, and the classifier: 20 * 6 + 2. With 1000 classes
        # there are 11,689,512 and 7,978,856 parameters; each of the 998 fewer has 512 or 1024 weights and a bias.
        ("resnet18", "theirs.pth", 122, 11_689_512 - 998 * 513),
        # 120 convolutions, 121 norms, the classifier: 120 + 121 * 5 + 2
        pytest.param("densenet121", "theirs.safetensors", 727, 7_978_856 - 998 * 1025, marks=pytest.mark.slow),
    ],
)
def test_torchvision(folder: Path, name: str, file: str, tensors: int, parameters: int) -> None:
    theirs = random_classifier(name, 2)
    (torch.save if file.endswith("pth") else save_file)(theirs.state_dict(), folder / file)
    ended = import_here(folder, "--weights", file, "--names", "two.names")
    assert (ended.code, ended.error) == (0, "")
    assert ended.output.splitlines() == [
        f"{file}: {tensors} tensors of torchvision, {name}; ImageNet's mean and deviation and 224 px are assumed",
        f"out.pt: {name}, 2 classes, 224 px, {parameters:,} parameters",
    ]
    found = load_checkpoint(folder / "out.pt")
    assert (found.names, found.category_ids) == (("left", "right"), (0, 1))
    assert (found.image_size, found.center_crop) == (224, 0.875)
    origin = found.provenance["imported_from"]
    assert (origin["file"], origin["format"], origin["tensors"]) == (file, "torchvision", tensors)
    assert_computes_the_same(found.classifier, theirs)


@pytest.mark.slow
def test_class_names_of_torchvision(folder: Path) -> None:
    """They are asked for, unless there are as many as ImageNet has: then it is said that they are numbers."""
    torch.save(zeros("resnet18", 3), folder / "three.pth")
    for words, message in [
        ((), "--names: is needed, because three.pth has none: a file, or how many classes"),
        (
            ("--names", "coco"),
            "--names coco: is for detectors; a classifier takes a file, or how many classes",
        ),
    ]:
        assert import_here(folder, "--weights", "three.pth", *words).complaint == f"error: {message}"
    assert not (folder / "out.pt").exists()
    torch.save(zeros("resnet18", 1000), folder / "imagenet.pth")
    ended = import_here(folder, "--weights", "imagenet.pth", "--image-size", 256)
    assert (
        "imagenet.pth: 122 tensors of torchvision, resnet18; its classes are called 0 to 999, --names" in ended.output
    )
    found = load_checkpoint(folder / "out.pt")
    assert (found.names[0], found.names[-1], len(found.names), found.image_size) == ("0", "999", 1000, 256)


def test_yolox(folder: Path) -> None:
    """A state dict, as in a training's checkpoint, and an exported file; 3 classes need names."""
    state = random_state()
    torch.save({"start_epoch": 300, "model": state, "optimizer": None}, folder / "yolox.pth")
    ended = import_here(folder, "--weights", "yolox.pth", "--names", 3)
    assert ended.output.splitlines()[0] == f"yolox.pth: {len(state)} tensors of YOLOX, yolox-nano"
    found = load_checkpoint(folder / "out.pt")
    assert (found.names, found.image_size, found.model.definition.name) == (("0", "1", "2"), 416, "yolox-nano")
    write_export(folder / "yolox.onnx", state)
    assert "--names: is needed, because yolox.onnx has none" in import_here(folder, "--weights", "yolox.onnx").complaint
    assert import_here(folder, "--weights", "yolox.onnx", "--names", 3).code == 0
    assert load_checkpoint(folder / "out.pt").provenance["imported_from"]["convolutions"] == 113
    (folder / "cut.onnx").write_bytes((folder / "yolox.onnx").read_bytes()[:1000])
    for name, words, message in [
        ("cut.onnx", (), "cut.onnx: is not an ONNX file, or is damaged"),
        ("yolox.onnx", ("--model", "yolox-s"), "yolox.onnx: weights of another model than yolox-s: "),
        ("yolox.onnx", ("--partial",), "--partial: is for Darknet's files"),
        ("yolox.pth", ("--names", 4), "yolox.pth: has 3 classes, but 4 names are given"),
        ("small.weights", ("--model", "resnet10+fpn+anchor-free", "--names", 2), "small.weights: "),
    ]:
        assert message in import_here(folder, "--weights", name, *words).complaint


def test_files_of_no_known_family(folder: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(2)}, folder / "vgg.pth")
    message = "vgg.pth: 'features.0.weight' and the others are of no known family: YOLOv5 has names such as"
    assert message in import_here(folder, "--weights", "vgg.pth", "--names", 2).complaint


# ------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--weights", "none.weights"), "none.weights: cannot be read: No such file or directory"),
        (("--weights", "small.yaml"), "small.yaml: is not a Darknet weights file"),
        (("--weights", "short.weights"), "short.weights: ends inside layers.stem, layer 1 of 2"),
        (("--weights", "long.weights"), "long.weights: has 37 values more than the 63 of small with 2 classes"),
        (
            ("--weights", "other.pt"),
            "other.pt: is not an archive of PyTorch: it is a text file that starts with 'text'",
        ),
        (("--weights", "other.safetensors"), "other.safetensors: is not a safetensors file: it is a text file"),
        (("--model", "smal.yaml"), "smal.yaml: cannot be read: No such file or directory"),
        (("--model", "cspdarknet53"), "the last row must be AnchorDetect"),
        (
            ("--names", "none.names"),
            "--names none.names: cannot be read: No such file or directory; coco, a file or a number",
        ),
        (("--names", "empty.names"), "empty.names: must have a class name on each line"),
        (("--names", "gap.names"), "gap.names: must have a class name on each line"),
        (("--names", "twice.names"), "twice.names: duplicate class 'a'"),
        (("--names", "latin.names"), "latin.names: is not UTF-8 text"),
        (("--names", "3"), "it would fit 2 classes"),
        (("--image-size", "415"), "image size: must be a multiple of 2, found 415"),
        (("--image-size", "0"), "--image-size: must be a whole number above 0"),
        (("--out", "small.weights"), "--out small.weights: is the file that is read"),
        # What is wrong with --out is said before the weights are looked at.
        (("--out", ".", "--weights", "none.weights"), "--out .: is a folder; name a file in it"),
        (
            ("--out", "two.names/new/x.pt", "--weights", "none.weights"),
            "two.names/new/x.pt: cannot be written in FOLDER/two.names: Not a directory",
        ),
    ],
)
def test_refused(folder: Path, words: tuple[str, ...], message: str) -> None:
    """One line, exit code 2, nothing written."""
    write_darknet(folder / "short.weights", 20)
    write_darknet(folder / "long.weights", 100)
    for name in ("other.pt", "other.safetensors"):
        (folder / name).write_bytes(b"text")
    texts = {"empty": b"\n", "gap": b"a\n\nb\n", "twice": b"a\na\n", "latin": b"\xe9t\xe9\n"}
    for name, text in texts.items():
        (folder / f"{name}.names").write_bytes(text)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert message.replace("FOLDER", str(folder)) in import_here(folder, *SMALL_WORDS, *words).complaint
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o500)
    words = ("--out", "locked/new/x.pt", "--weights", "none.weights")
    complaint = f"--out locked/new/x.pt: cannot be written in {folder / 'locked'}: Permission denied"
    assert complaint in import_here(folder, *SMALL_WORDS, *words).complaint


def test_what_darknet_files_need(folder: Path) -> None:
    for missing, message in [("--model", "--model: is needed"), ("--names", "--names: is needed")]:
        i = SMALL_WORDS.index(missing)
        assert message in import_here(folder, *SMALL_WORDS[:i], *SMALL_WORDS[i + 2 :]).complaint


def test_partial_is_for_darknet(folder: Path) -> None:
    (folder / "x.pt").touch()
    assert "--partial: is for Darknet's files" in import_here(folder, "--weights", "x.pt", "--partial").complaint


def test_a_payload_does_not_run(folder: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return Path.mkdir, (folder / "made",)

    torch.save({"model": Payload(), "ema": None}, folder / "x.pt")
    assert "x.pt: holds neither a state dict nor a model" in import_here(folder, "--weights", "x.pt").complaint
    assert not (folder / "made").exists()
