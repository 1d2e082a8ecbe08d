"""Publishing a model and fetching it: in a folder, and with the real client against a local server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detect.errors import InputError
from detect.exporting.hub import PushOptions, pull, push
from detect.exporting.ship import sha256
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from tests.exporting.hub_server import serving
from tests.models.yamls import TINY, write_model

ROOT = Path(__file__).parents[2]
FACTS: dict[str, Any] = {
    "names": ("cat|dog", "<b>\x1b[2J"),
    "category_ids": (1, 18),
    "image_size": 64,
    "metrics": {"AP": 0.5, "AP_S": 0.25},
    "provenance": {
        "command": "detect train --data /home/me/secret/boards --model tiny.yaml",
        "settings": {"data": {"name": "boards", "root": "/home/me/secret/boards"}},
        "detect": "0.1.0",
        "epoch": 3,
        "train_images": 12,
        "train_boxes": 99,
    },
}


@pytest.fixture
def best(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = build_model(str(write_model(tmp_path, TINY)), 2)
    save_checkpoint(tmp_path / "best.pt", model, **FACTS, training={"epoch": 3})
    return tmp_path / "best.pt"


@pytest.mark.parametrize("form", ["{}/pub lished", "file://{}/pub%20lished"])
def test_a_folder(best: Path, tmp_path: Path, form: str) -> None:
    address = form.format(tmp_path)
    lines = push(PushOptions(best, address, "apache-2.0"))
    folder = tmp_path / "pub lished"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "SHA256SUMS", "model.safetensors"]
    assert lines == [
        f"{folder}: model.safetensors, README.md, SHA256SUMS",
        f"sha256 {sha256(folder / 'model.safetensors')}",
    ]
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    assert pull(address, tmp_path / "new" / "mine.safetensors")[0].endswith("mine.safetensors: tiny, 2 classes, 64 px")
    assert load_checkpoint(tmp_path / "new" / "mine.safetensors").names == FACTS["names"]


def test_the_card(best: Path, tmp_path: Path) -> None:
    """YAML that the Hub reads, and a table; neither a path of the machine nor a name that breaks the table."""
    push(PushOptions(best, str(tmp_path / "published"), "cc-by-4.0"))
    text = (tmp_path / "published" / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert (facts["license"], facts["pipeline_tag"]) == ("cc-by-4.0", "object-detection")
    (result,) = facts["model-index"][0]["results"]
    assert result["dataset"] == {"name": "boards", "type": "boards"}
    assert result["metrics"] == [{"type": "AP", "value": 0.5}, {"type": "AP_S", "value": 0.25}]
    rows = {line.split(" | ")[0].strip("| "): line for line in body.splitlines() if line.startswith("| ")}
    assert rows["data"] == "| data | boards, 12 training images, 99 training boxes |"
    assert rows["result"].startswith("| result | AP 0.500, AP_S 0.250; on the validation split, ")
    assert r"2 classes (cat\|dog, &lt;b>\x1b[2J)" in rows["model"]
    assert "`detect train --data boards --model tiny.yaml` (detect 0.1.0, epoch 3, train_images 12)" in rows["command"]
    assert "secret" not in text
    assert "\x1b" not in text


def test_the_cards_yaml_is_the_hubs(best: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    push(PushOptions(best, str(tmp_path / "published"), "mit"))
    card = hub.ModelCard.load(tmp_path / "published" / "README.md")
    assert card.data.license == "mit"
    assert [(one.metric_type, one.metric_value) for one in card.data.eval_results] == [("AP", 0.5), ("AP_S", 0.25)]


def changed(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1] + b"\0")


DAMAGES = {
    "changed": (changed, {}, r"model.safetensors has the SHA-256 \w{64}, must be \w{64}; nothing is kept"),
    "pinned": (lambda folder: None, {"checksum": "0" * 64}, "must be 0{64}; nothing is kept"),
    "no list": (lambda folder: (folder / "SHA256SUMS").unlink(), {}, "SHA256SUMS: cannot be read: No such file"),
    "twice": (
        lambda folder: (folder / "SHA256SUMS").write_text(f"{'0' * 64}  model.safetensors\n" * 2),
        {},
        "one line",
    ),
    "no hash": (lambda folder: (folder / "SHA256SUMS").write_text("abc  model.safetensors\n"), {}, "one line"),
    "long": (lambda folder: (folder / "SHA256SUMS").write_text("a" * 70_000), {}, "is larger than 65536 bytes"),
    "no model": (lambda folder: (folder / "model.safetensors").unlink(), {}, "holds no model.safetensors"),
    "no digits": (lambda folder: None, {"checksum": "xyz"}, "--sha256 'xyz': must be 64 hexadecimal digits"),
    "revision": (lambda folder: None, {"revision": "main"}, "--revision: is for models on the Hub"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_not_kept(best: Path, tmp_path: Path, name: str) -> None:
    damage, options, message = DAMAGES[name]
    push(PushOptions(best, str(tmp_path / "published"), "mit"))
    damage(tmp_path / "published")
    with pytest.raises(InputError, match=message):
        pull(str(tmp_path / "published"), tmp_path / "mine.safetensors", **options)
    assert not (tmp_path / "mine.safetensors").exists()


def test_nothing_is_overwritten(best: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"best\.pt: exists already"):
        push(PushOptions(best, str(best), "mit"))
    (tmp_path / "mine.safetensors").write_text("mine")
    with pytest.raises(InputError, match=r"mine\.safetensors: exists already; name a new file"):
        pull(str(tmp_path), tmp_path / "mine.safetensors")
    with pytest.raises(InputError, match=r"--out mine\.pt: must end in \.safetensors"):
        pull(str(tmp_path), Path("mine.pt"))


@pytest.mark.parametrize("address", ["name", "a/b/c", "https://huggingface.co/a/b", "-a/b", "file://server/x", ""])
def test_addresses(best: Path, address: str) -> None:
    with pytest.raises(InputError, match=r"must be USER/NAME|names another machine"):
        push(PushOptions(best, address, "mit"))


def test_a_licence_is_an_identifier(best: Path) -> None:
    with pytest.raises(InputError, match="--licence 'my own\\\\n': must be an identifier"):
        push(PushOptions(best, "./x", "my own\n"))


def test_the_package_is_named(best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"me/x: needs huggingface_hub: pip install 'detect-small\[hub\]'"):
        pull("me/x", tmp_path / "mine.safetensors")


def _run(folder: Path, address: str, *words: object) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
    hub = {"HF_ENDPOINT": address, "HF_TOKEN": "hf_test", "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-m", "detect", "hub", *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, **hub, "PYTHONPATH": paths, "NO_PROXY": "127.0.0.1"},
    )


@pytest.mark.slow
def test_the_hub(best: Path, tmp_path: Path) -> None:
    """The real client: a new private repository with three files, which come back; what is wrong is one line."""
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    with serving(tmp_path / "served") as (address, asked):
        done = _run(tmp_path, address, "push", "--weights", best, "--to", "me/boards", "--licence", "mit")
        assert done.returncode == 0, done.stderr
        repository = tmp_path / "served" / "me" / "boards"
        assert {path.name for path in repository.iterdir()} >= {"README.md", "SHA256SUMS", "model.safetensors"}
        assert (repository / ".visibility").read_text() == "private"
        words = ("pull", "--from", "me/boards", "--out", "mine.safetensors", "--revision", "main")
        done = _run(tmp_path, address, *words)
        assert done.returncode == 0, done.stderr
        assert sha256(tmp_path / "mine.safetensors") == sha256(repository / "model.safetensors")
        changed(repository)
        done = _run(tmp_path, address, "pull", "--from", "me/boards", "--out", "b.safetensors")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "has the SHA-256" in done.stderr
        done = _run(tmp_path, address, "pull", "--from", "me/nothing", "--out", "b.safetensors")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith("error: me/nothing: ")
    assert not (tmp_path / "b.safetensors").exists()
    assert any(line.endswith("/commit/main") for line in asked)
