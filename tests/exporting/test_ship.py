from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detect.errors import InputError
from detect.exporting.ship import sha256, ship_checkpoint, without_machine
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from tests.models.yamls import TINY, write_model

PROVENANCE = {
    "command": "tools/train.py --data-root '/data/my set' --out=/home/me/runs/a --set 'optimizer.lr=0.1'",
    "settings": {"data": {"root": "/data/my set", "splits": ["a/b", "/x/c"]}, "weights": None},
    "detect": "0.1.0",
    "epoch": 3,
}

FACTS: dict[str, Any] = {"names": ("cat", "dog"), "category_ids": (1, 18), "image_size": 64, "metrics": {"AP": 0.5}}


@pytest.fixture
def best(tmp_path: Path) -> Path:
    """A checkpoint with the state of its training."""
    torch.manual_seed(0)
    model = build_model(str(write_model(tmp_path, TINY)), 2)
    model.train()(torch.rand(2, 3, 32, 32))
    save_checkpoint(tmp_path / "best.pt", model, **FACTS, provenance=PROVENANCE, training={"epoch": 3})
    return tmp_path / "best.pt"


def test_what_is_shipped(best: Path, tmp_path: Path) -> None:
    """Weights within the precision of float16, 2 ** -11 of a value, the rest exactly; nothing of the training."""
    ship_checkpoint(best, tmp_path / "a.pt")
    before, after = load_checkpoint(best), load_checkpoint(tmp_path / "a.pt")
    weights = {name for name, parameter in before.model.named_parameters() if parameter.dim() > 1}
    stored = torch.load(tmp_path / "a.pt", weights_only=True)["state_dict"]
    assert {name for name, tensor in stored.items() if tensor.dtype == torch.float16} == weights
    for name, tensor in after.model.state_dict().items():
        tolerance = 2**-11 if name in weights else 0
        torch.testing.assert_close(tensor, before.model.state_dict()[name], rtol=tolerance, atol=1e-7 * (tolerance > 0))
    assert after.training is None
    assert (after.names, after.category_ids, after.image_size) == (before.names, before.category_ids, before.image_size)
    assert after.metrics == before.metrics
    assert after.provenance["settings"]["data"] == {"root": "my set", "splits": ["a/b", "c"]}


def test_the_rows_of_the_card(best: Path, tmp_path: Path) -> None:
    checksum, model, command = ship_checkpoint(best, tmp_path / "a.pt")
    assert checksum == f"| sha256 | `{sha256(tmp_path / 'a.pt')}` |"
    parameters = sum(p.numel() for p in load_checkpoint(best).model.parameters())
    assert model.startswith(f"| model | `tiny`, 2 classes (cat, dog): {parameters:,} parameters, ")
    assert model.endswith(" G multiply-adds at 64 px |")
    assert command == (
        "| command | `python tools/train.py --data-root 'my set' --out=a --set optimizer.lr=0.1` "
        "(detect 0.1.0, epoch 3) |"
    )


def test_the_command_in_the_card(best: Path, tmp_path: Path) -> None:
    before = load_checkpoint(best)
    provenance = {**before.provenance, "command": "detect train --run start"}
    save_checkpoint(best, before.model, **{**FACTS, "provenance": provenance})
    assert (
        ship_checkpoint(best, tmp_path / "a.pt")[2]
        == "| command | `detect train --run start` (detect 0.1.0, epoch 3) |"
    )


def test_the_same_file_twice(best: Path, tmp_path: Path) -> None:
    """What was shipped can be shipped again, and is the same bytes."""
    ship_checkpoint(best, tmp_path / "a.pt")
    ship_checkpoint(tmp_path / "a.pt", tmp_path / "b" / "a.pt")
    assert sha256(tmp_path / "a.pt") == sha256(tmp_path / "b" / "a.pt")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/a/b", "b"),
        ("/a/b/", "b"),
        ("~/a/b", "b"),
        (r"C:\a\b", "b"),
        ("C:/a/b", "b"),
        ("a/b", "a/b"),
        ("../a/b", "../a/b"),
        ("2026-11-25T20:51:31+00:00", "2026-11-25T20:51:31+00:00"),
        ("https://a.b/c", "https://a.b/c"),
        ({"root": ["/a/b", 1, None, 0.5, True]}, {"root": ["b", 1, None, 0.5, True]}),
        ({"command": "t.py --out '/a/b c' x=/d/e"}, {"command": "t.py --out 'b c' x=e"}),
        ({"command": "t.py --out /a/it's"}, {"command": """t.py --out 'it'"'"'s'"""}),  # a quote without its partner
        ({"command": "t.py --set a=[1,/b/c]"}, {"command": "t.py --set 'a=[1,/b/c]'"}),  # not a path
    ],
)
def test_paths_of_a_machine(value: Any, expected: Any) -> None:
    assert without_machine(value) == expected


@pytest.mark.parametrize(
    ("out", "message"), [("best.pt", "is the checkpoint itself"), ("a.onnx", "must end in .pt or .safetensors")]
)
def test_refused(best: Path, out: str, message: str) -> None:
    with pytest.raises(InputError, match=f"--out .*{out}: {message}"):
        ship_checkpoint(best, best.with_name(out))
    assert load_checkpoint(best).training == {"epoch": 3}
