from __future__ import annotations

import os
import pickle
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from detect.errors import InputError
from detect.models.build import build_model
from detect.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from detect.models.definition import with_args
from detect.models.model import DetectionModel
from tests.models.yamls import TINY, write_model

FACTS: dict[str, Any] = {
    "names": ("cell", "plate"),
    "category_ids": (3, 7),
    "image_size": 64,
    "metrics": {"ap": 0.25},
    "provenance": {"command": "train", "versions": {"torch": "2"}},
}


@pytest.fixture
def model(tmp_path: Path) -> DetectionModel:
    torch.manual_seed(0)
    return build_model(str(write_model(tmp_path, TINY)), 2)


@pytest.fixture
def saved(tmp_path: Path, model: DetectionModel) -> Path:
    path = tmp_path / "model.pt"
    save_checkpoint(path, model, **FACTS)
    return path


def change(path: Path, **changes: Any) -> None:
    """Replace entries of a checkpoint; ``...`` removes one."""
    content = {**torch.load(path, weights_only=True), **changes}
    torch.save({key: value for key, value in content.items() if value is not ...}, path)


def change_weights(path: Path, **changes: Any) -> None:
    """Replace tensors of a checkpoint's stem; ``...`` removes one."""
    state = torch.load(path, weights_only=True)["state_dict"]
    state |= {f"graph.layers.stem.conv.{name}": value for name, value in changes.items()}
    change(path, state_dict={name: value for name, value in state.items() if value is not ...})


# ------------------------------------------------------------------------------------------- round trip


def assert_same_weights(a: DetectionModel, b: DetectionModel) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_round_trip(model: DetectionModel, saved: Path) -> None:
    model.train()(torch.rand(2, 3, 32, 32))  # the norms' statistics are part of it
    training = {"epoch": 3, "optimizer": {"step": torch.tensor(5)}}
    save_checkpoint(saved, model, **FACTS, training=training)
    found = load_checkpoint(saved)
    assert_same_weights(found.model, model)
    assert found.model.definition.rows == model.definition.rows
    assert not found.model.training
    assert all(p.dtype == torch.float32 and p.device.type == "cpu" for p in found.model.parameters())
    assert {name: getattr(found, name) for name in FACTS} == FACTS
    assert found.training == training


@pytest.fixture
def binary(tmp_path: Path) -> DetectionModel:
    """A model with one BDSC layer of 16 * 16 * 9 signs, after a step that led out of [-1, 1]."""
    torch.manual_seed(0)
    model = build_model(str(write_model(tmp_path, TINY + "conv: bdsc\n")), 2)
    with torch.no_grad():
        model.graph.layers.down.conv.conv.spatial.weight.mul_(20)
    return model.to(memory_format=torch.channels_last)


def test_binary_weights_are_saved_as_bits(tmp_path: Path, binary: DetectionModel) -> None:
    """The same outputs bit for bit, and the same bits when saved again; Q is gone."""
    first, second, images = tmp_path / "a.pt", tmp_path / "b.pt", torch.rand(2, 3, 32, 32)
    binary.train()(images)
    save_checkpoint(first, binary, **FACTS)
    loaded = load_checkpoint(first).model.to(memory_format=torch.channels_last)  # sums in the same order
    with torch.no_grad():
        found, expected = loaded(images), binary.eval()(images)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    save_checkpoint(second, loaded, **FACTS)
    states = [torch.load(path, weights_only=True)["state_dict"] for path in (first, second)]
    name = "graph.layers.down.conv.conv.spatial"
    assert {key for key in states[0] if key.startswith(name)} == {f"{name}.bits", f"{name}.alpha"}
    assert states[0][f"{name}.bits"].nbytes == 16 * 16 * 9 / 8
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(loaded.state_dict()[f"{name}.weight"], binary.state_dict()[f"{name}.weight"])


def test_what_goes_on_learning_keeps_its_weights(tmp_path: Path, binary: DetectionModel) -> None:
    save_checkpoint(tmp_path / "last.pt", binary, **FACTS, training={"epoch": 1})
    assert_same_weights(load_checkpoint(tmp_path / "last.pt").model, binary)


def test_bits_that_do_not_fit(tmp_path: Path, binary: DetectionModel) -> None:
    path, name = tmp_path / "model.pt", "graph.layers.down.conv.conv.spatial"
    save_checkpoint(path, binary, **FACTS)
    state = torch.load(path, weights_only=True)["state_dict"]
    change(path, state_dict=state | {f"{name}.bits": state[f"{name}.bits"][1:]})
    with pytest.raises(InputError, match=rf"model\.pt: {name}\.bits: must be torch\.uint8 \(288,\), found .*287,\)$"):
        load_checkpoint(path)
    change(path, state_dict={key: value for key, value in state.items() if not key.endswith(".alpha")})
    with pytest.raises(InputError, match=rf"weights of another model: {name}\.bits; {name}\.weight$"):
        load_checkpoint(path)


def test_bits_for_an_ordinary_model(tmp_path: Path, saved: Path, binary: DetectionModel) -> None:
    save_checkpoint(tmp_path / "binary.pt", binary, **FACTS)
    change(saved, state_dict=torch.load(tmp_path / "binary.pt", weights_only=True)["state_dict"])
    with pytest.raises(InputError, match=r"model\.pt: weights of another model: .* and \d more$"):
        load_checkpoint(saved)


def test_shipped_model_round_trip(tmp_path: Path) -> None:
    model = build_model("yolov5n-spd", 2).eval()
    save_checkpoint(tmp_path / "model.pt", model, **FACTS)
    found = load_checkpoint(tmp_path / "model.pt")
    images = torch.rand(1, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(found.model.decode(found.model(images)), model.decode(model(images)))
    assert found.model.definition.name == "yolov5n-spd"
    assert found.model.definition.rows == model.definition.rows
    assert found.training is None


def test_fitted_anchors_are_kept(tmp_path: Path, model: DetectionModel) -> None:
    fitted = DetectionModel(with_args(model.definition, "AnchorDetect", anchors_px=[[[1, 2]], [[3.5, 4]]]), 2)
    save_checkpoint(tmp_path / "model.pt", fitted, **FACTS)
    assert load_checkpoint(tmp_path / "model.pt").model.head.anchors_px.tolist() == [[[1, 2]], [[3.5, 4]]]


def test_plain_pytorch_reads_it(saved: Path) -> None:
    """Others need nothing of ours: tensors and plain values in one dictionary."""
    content = torch.load(saved, weights_only=True)
    assert content["format"] == "detect-checkpoint"
    assert content["format_version"] == 1
    assert content["names"] == ["cell", "plate"]
    assert content["definition"]["name"] == "tiny"
    assert all(isinstance(value, torch.Tensor) for value in content["state_dict"].values())


# ------------------------------------------------------------------------------------------ other files


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


REFUSED = (
    "holds Python objects, not only tensors and plain values; reading it could run code, so it is refused; "
    r"detect import converts models of YOLOv5, YOLOX and torchvision without running any$"
)
NOT_OURS = (
    r"is not a checkpoint of this toolkit; detect train writes them, "
    r"and detect import converts the weights of YOLOv5, YOLOX, Darknet and torchvision$"
)
DAMAGED = "is not a checkpoint, or is damaged$"


def test_hostile_archive(tmp_path: Path, saved: Path) -> None:
    change(saved, provenance={"command": Hostile(tmp_path / "owned")})
    with pytest.raises(InputError, match=rf"model\.pt: {REFUSED}"):
        load_checkpoint(saved)
    assert not (tmp_path / "owned").exists()
    torch.load(saved, weights_only=False)  # the file is what it claims to be
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_hostile_pickle(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Hostile(tmp_path / "owned"), protocol))
    with pytest.raises(InputError, match=DAMAGED):
        load_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_whole_module(tmp_path: Path, model: DetectionModel) -> None:
    """What ``torch.save(model)`` writes needs the class, and so code."""
    torch.save(model, tmp_path / "model.pt")
    with pytest.raises(InputError, match=REFUSED):
        load_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"epochs: 3\n", "größer".encode(), bytes(range(256)), b"\x80\x02.", b"PK\x03\x04"],
    ids=["empty", "zero", "text", "utf-8", "bytes", "pickle", "archive"],
)
def test_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InputError, match=rf"^{tmp_path / 'model.pt'}: {DAMAGED}"):
        load_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (struct.pack("<3iq", 0, 2, 5, 640) + bytes(40), "Darknet weights"),
        (b"\x36" + bytes(7) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' + bytes(4), "safetensors"),
    ],
)
def test_files_that_can_be_imported(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    message = rf"model\.pt: is a {kind} file, not a checkpoint of this toolkit; detect import makes one of it$"
    with pytest.raises(InputError, match=message):
        load_checkpoint(tmp_path / "model.pt")


def test_another_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match=DAMAGED):
        load_checkpoint(tmp_path / "model.pt")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pt: cannot be read: No such file or directory$"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(InputError, match=r": cannot be read: Is a directory$"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.9999])
def test_truncated(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=DAMAGED):
        load_checkpoint(saved)


def test_flipped_bit_in_a_weight(saved: Path, model: DetectionModel) -> None:
    """PyTorch alone would give a model with another weight."""
    content = bytearray(saved.read_bytes())
    weights = model.state_dict()["graph.layers.down.conv.conv.weight"].numpy().tobytes()
    content[content.index(weights) + 400] ^= 1
    saved.write_bytes(content)
    with pytest.raises(InputError, match=DAMAGED):
        load_checkpoint(saved)


def test_damage_anywhere_is_an_input_error(saved: Path) -> None:
    """Whatever three bytes change: either nothing of ours is touched, or it is told in one line."""
    whole, rng = saved.read_bytes(), random.Random(0)
    messages = []
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(3):
            content[rng.randrange(len(content))] = rng.randrange(256)
        saved.write_bytes(content)
        try:
            load_checkpoint(saved)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not [message for message in messages if "\n" in message]


@pytest.mark.parametrize(
    "content", [{}, {"state_dict": {}}, {"model": 1}, {"format": "other"}, [1, 2], 3, torch.zeros(2)], ids=str
)
def test_other_content(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(InputError, match=NOT_OURS):
        load_checkpoint(tmp_path / "model.pt")


# --------------------------------------------------------------------------------- checkpoints with faults


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_other_format_version(saved: Path, version: Any) -> None:
    change(saved, format_version=version)
    with pytest.raises(InputError, match=rf"has format version {version!r}; this program reads 1$"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "key", ["definition", "names", "state_dict", "category_ids", "image_size", "metrics", "training"]
)
def test_missing_entry(saved: Path, key: str) -> None:
    change(saved, **{key: ...})
    with pytest.raises(InputError, match=rf"is an incomplete checkpoint \('{key}'\)$"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("names", 3),
        ("definition", "tiny"),
        ("definition", [1]),
        ("state_dict", None),
        ("state_dict", [1]),
        ("category_ids", ["a", "b"]),
        ("category_ids", None),
        ("image_size", "large"),
        ("metrics", "good"),
        ("provenance", [1]),
    ],
)
def test_entries_of_another_kind(saved: Path, key: str, value: Any) -> None:
    change(saved, **{key: value})
    with pytest.raises(InputError, match=r"model\.pt: "):
        load_checkpoint(saved)


def test_names_and_category_ids_that_differ_in_number(saved: Path) -> None:
    change(saved, category_ids=[1, 2, 3])
    with pytest.raises(InputError, match=r"has 2 names, but 3 category ids$"):
        load_checkpoint(saved)


def test_definition_that_cannot_be_built(saved: Path) -> None:
    definition = torch.load(saved, weights_only=True)["definition"]
    definition["backbone"]["rows"][1]["module"] = "Dwnsample"
    change(saved, definition=definition)
    with pytest.raises(
        InputError, match=r"model\.pt: backbone\.down: module: unknown 'Dwnsample'; did you mean 'Downsample'\?$"
    ):
        load_checkpoint(saved)


def test_weights_of_another_shape(saved: Path) -> None:
    change_weights(saved, weight=torch.zeros(8, 3, 1, 1))
    message = r"weights of another model: graph\.layers\.stem\.conv\.weight is \(8, 3, 1, 1\), must be \(8, 3, 3, 3\)$"
    with pytest.raises(InputError, match=message):
        load_checkpoint(saved)


def test_missing_and_extra_weights(saved: Path) -> None:
    change_weights(saved, weight=..., bias=torch.zeros(8))
    message = r"weights of another model: graph\.layers\.stem\.conv\.bias; graph\.layers\.stem\.conv\.weight$"
    with pytest.raises(InputError, match=message):
        load_checkpoint(saved)


def test_many_wrong_weights_are_counted(saved: Path) -> None:
    change(saved, names=["a", "b", "c"], category_ids=[1, 2, 3])  # the head's 2 weights and 2 biases do not fit
    with pytest.raises(InputError, match=r"weights of another model: .*; .*; .* and 1 more$"):
        load_checkpoint(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(saved: Path, value: float) -> None:
    weight = torch.zeros(8, 3, 3, 3)
    weight[7, 2, 1, 0] = value
    change_weights(saved, weight=weight)
    message = r"graph\.layers\.stem\.conv\.weight is not finite \(1 tensors in all\); the file is of no use$"
    with pytest.raises(InputError, match=message):
        load_checkpoint(saved)


def test_negative_variances(saved: Path) -> None:
    """Their square root would make every prediction NaN."""
    state = torch.load(saved, weights_only=True)["state_dict"]
    state["graph.layers.stem.norm.running_var"][3] = -0.5
    change(saved, state_dict=state)
    message = (
        r"graph\.layers\.stem\.norm\.running_var has a negative variance \(1 tensors in all\); the file is of no use$"
    )
    with pytest.raises(InputError, match=message):
        load_checkpoint(saved)


# ------------------------------------------------------------------------------------------------ saving


def test_failed_save_leaves_the_old_file(saved: Path, model: DetectionModel) -> None:
    before = saved.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save_checkpoint(saved, model, **FACTS, training={"what": lambda: None})
    assert saved.read_bytes() == before
    assert sorted(p.name for p in saved.parent.iterdir()) == ["model.pt", "model.yaml"]
    assert isinstance(load_checkpoint(saved), Checkpoint)


def test_saving_makes_the_folder(tmp_path: Path, model: DetectionModel) -> None:
    save_checkpoint(tmp_path / "a" / "b" / "model.pt", model, **FACTS)
    assert load_checkpoint(tmp_path / "a" / "b" / "model.pt").names == FACTS["names"]


@pytest.mark.slow
def test_saved_weights_are_not_views_of_more(tmp_path: Path) -> None:
    """A file holds the weights once: 4 bytes each and little else."""
    model = build_model("yolov5n", 2).to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "model.pt", model, **FACTS)
    values = sum(value.numel() for value in model.state_dict().values())
    assert (tmp_path / "model.pt").stat().st_size < 4 * values * 1.1
    assert_same_weights(load_checkpoint(tmp_path / "model.pt").model, model)
