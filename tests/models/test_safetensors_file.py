"""Checkpoints as safetensors: the same content as ``.pt``, and refusals of a stranger's metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from detect import Detector
from detect.errors import InputError
from detect.exporting.ship import ship_checkpoint
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, rewrite_checkpoint, save_checkpoint
from detect.models.foreign.importing import ImportOptions, import_weights
from detect.models.safetensors_file import ENTRY
from tests.hostile.fuzzed import check_message, message_of
from tests.models.yamls import TINY, write_model
from tests.papers.sdpoint.samples import detector
from tests.tools.running import run_here

FACTS: dict[str, Any] = {
    "names": ("größe", "\x1b[2J"),
    "category_ids": (3, 7),
    "image_size": 64,
    "metrics": {"AP": 0.1 + 0.2},
    "value_range": (0.5, 4095.0),
    "provenance": {"command": "detect train", "settings": {"recipe": {"epochs": 3, "anchors": None}}, "epoch": 2},
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = build_model(str(write_model(tmp_path, TINY)), 2)
    model.train()(torch.rand(2, 3, 32, 32))
    save_checkpoint(tmp_path / "best.pt", model, **FACTS, training={"epoch": 3})
    return tmp_path / "best.pt"


def test_both_forms_hold_the_same(saved: Path, tmp_path: Path) -> None:
    rows = ship_checkpoint(saved, tmp_path / "a.safetensors")
    assert ship_checkpoint(saved, tmp_path / "a.pt")[1:] == rows[1:]
    plain, archive = load_checkpoint(tmp_path / "a.safetensors"), load_checkpoint(tmp_path / "a.pt")
    for name, tensor in archive.model.state_dict().items():
        assert torch.equal(plain.model.state_dict()[name], tensor), name
    for field in ("names", "category_ids", "image_size", "metrics", "value_range", "provenance", "training"):
        assert getattr(plain, field) == getattr(archive, field), field
    assert plain.model.definition.name == archive.model.definition.name
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    found = [Detector(tmp_path / f"a{form}", "cpu").predict(image, conf=0.0) for form in (".safetensors", ".pt")]
    assert len(found[0]) > 0
    assert np.array_equal(found[0].boxes_xyxy_px, found[1].boxes_xyxy_px)


def test_other_programs_read_it(saved: Path, tmp_path: Path) -> None:
    """The package of the format: the names of the state dict, and metadata that are texts."""
    ship_checkpoint(saved, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert set(file.keys()) == set(load_checkpoint(saved).model.state_dict())
        assert json.loads(file.metadata()[ENTRY])["names"] == ["größe", "\x1b[2J"]
    ship_checkpoint(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_tensors_of_extras(tmp_path: Path) -> None:
    """The norm statistics of SDPoint's instances come back, and are no weights for the import."""
    checkpoint = detector(tmp_path)
    rewrite_checkpoint(tmp_path / "a.safetensors", checkpoint)
    rewrite_checkpoint(tmp_path / "a.pt", checkpoint)
    plain, archive = (load_checkpoint(tmp_path / name).extras["instances"] for name in ("a.safetensors", "a.pt"))
    assert plain.members == archive.members
    assert plain.records == archive.records
    assert plain.statistics.keys() == archive.statistics.keys()
    means = [norms[path][0] for norms in archive.statistics.values() for path in norms]
    assert len(means) > 0
    for one, other in zip(means, (n[path][0] for n in plain.statistics.values() for path in n), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError, match=r"a\.safetensors: is a checkpoint of this toolkit; --model must name"):
        import_weights(ImportOptions(tmp_path / "a.safetensors", tmp_path / "b.pt"))


def test_a_state_dict_of_others(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, str(tmp_path / "a.safetensors"), {"format": "pt"})
    with pytest.raises(
        InputError, match="is a safetensors file, not a checkpoint of this toolkit; detect import makes"
    ):
        load_checkpoint(tmp_path / "a.safetensors")


def changed(**changes: Any) -> Any:
    return lambda content: json.dumps({**content, **changes})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (lambda content: "", "its entry detect-checkpoint is not the JSON of a checkpoint"),
        (lambda content: "[]", "its entry detect-checkpoint is not the JSON"),
        (lambda content: '{"format": 1, "format": 2}', "its entry detect-checkpoint is not the JSON"),
        (lambda content: "[" * 100_000, "its entry detect-checkpoint is not the JSON"),
        (lambda content: '{"a":' * 100 + "1" + "}" * 100, "is not a checkpoint of this toolkit"),
        (changed(instances={"__tensor__": "extras/0"}), "its entry detect-checkpoint is not the JSON"),
        (changed(instances={"__tensor__": ["a"]}), "its entry detect-checkpoint is not the JSON"),
        (changed(format="else"), "is not a checkpoint of this toolkit"),
        (changed(format_version=2), "has format version 2; this program reads 1"),
        (changed(names=["\ud800", "b"]), "names: must be a list of texts"),
        (changed(names={"__tensor__": "graph.layers.stem.conv.weight"}), "names: must be a list of texts"),
        (changed(metrics={"AP": "0.5"}), "metrics: must be numbers by their names"),
        (changed(image_size=10**9), "image_size: must be a whole number from 1 to 16384"),
        (changed(definition=None), "is an incomplete checkpoint"),
        (changed(provenance=7), "is an incomplete checkpoint"),
    ],
)
def test_hostile_metadata(saved: Path, tmp_path: Path, entry: Any, message: str) -> None:
    ship_checkpoint(saved, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        content = json.loads(file.metadata()[ENTRY])
    save_file(tensors, str(tmp_path / "b.safetensors"), {"format": "pt", ENTRY: entry(content)})
    found = message_of(load_checkpoint, tmp_path / "b.safetensors")
    check_message(found)
    assert message in found


def test_a_definition_larger_than_the_file(saved: Path, tmp_path: Path) -> None:
    ship_checkpoint(saved, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        content = json.loads(file.metadata()[ENTRY])
    content["definition"]["backbone"]["scale"]["width"] = 100.0
    save_file(tensors, str(tmp_path / "b.safetensors"), {ENTRY: json.dumps(content)})
    assert "the model would have more than " in message_of(load_checkpoint, tmp_path / "b.safetensors")


@pytest.mark.slow
def test_every_command_reads_it(trained_world: Path, tmp_path: Path) -> None:
    plain = tmp_path / "a.safetensors"
    shipped = run_here(trained_world, "ship.py", "--weights", "run/best.pt", "--out", plain)
    assert shipped.code == 0, shipped.error
    data = ("--data", "data.yaml", "--device", "cpu")
    recipe = ("--recipe", "recipe.yaml", "--epochs", 1, "--out", tmp_path / "tuned")
    for words in (
        ("evaluate.py", "--weights", plain, *data, "--workers", 0),
        ("train.py", "--weights", plain, *data, *recipe),
        ("export.py", "--weights", plain, "--out", tmp_path / "a.onnx"),
        ("predict.py", "--weights", plain, "--source", "shapes/images/val", "--out", tmp_path / "found"),
    ):
        ended = run_here(trained_world, *words)
        assert ended.code == 0, ended.error
