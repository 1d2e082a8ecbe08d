"""Checkpoints from strangers, beside those in ``tests/models/test_checkpoint.py``: what plain tensors can do."""

from __future__ import annotations

import copy
import zipfile

import pytest
import torch

from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from tests.hostile.fuzzed import check_message, message_of
from tests.models.yamls import TINY, write_model

WEIGHT = "graph.layers.stem.conv.weight"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A checkpoint's content."""
    folder = tmp_path_factory.mktemp("good")
    model = build_model(str(write_model(folder, TINY)), num_classes=2)
    facts = {"names": ("a", "b"), "category_ids": (3, 7), "image_size": 64, "metrics": {"AP": 0.5}, "provenance": {}}
    save_checkpoint(folder / "best.pt", model, **facts)
    return torch.load(folder / "best.pt", weights_only=True)


def refused(folder, content):
    """The one line with which a content is refused."""
    torch.save(content, folder / "best.pt")
    message = message_of(load_checkpoint, folder / "best.pt")
    check_message(message)
    return message


TENSORS = {
    "meta": lambda w: w.to("meta"),
    "sparse": lambda w: w.to_sparse(),
    "complex": lambda w: w.to(torch.complex64),
    "truth values": lambda w: w > 0,
    "eight bits": lambda w: w.to(torch.float8_e4m3fn),
    "quantised": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
    "text": lambda w: "\x1b[2J",
    "nothing": lambda w: None,
    "list": lambda w: w.tolist(),
}


@pytest.mark.filterwarnings("ignore")  # PyTorch's, of kinds of tensors that it is giving up
@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_of_another_kind(tmp_path, good, kind):
    content = copy.deepcopy(good)
    content["state_dict"][WEIGHT] = TENSORS[kind](content["state_dict"][WEIGHT])
    assert f"{WEIGHT}: is no ordinary tensor of numbers (" in refused(tmp_path, content)


def test_a_tensor_that_claims_terabytes(tmp_path, good):
    content = copy.deepcopy(good)
    content["state_dict"][WEIGHT] = torch.zeros(1).expand(10**6, 10**6)
    assert "weights of another model: graph.layers.stem.conv.weight is (1000000, 1000000)" in refused(tmp_path, content)


def test_numbers_beyond_single_precision(tmp_path, good):
    content = copy.deepcopy(good)
    content["state_dict"][WEIGHT] = content["state_dict"][WEIGHT].double().fill_(1e300)
    assert f"{WEIGHT} is not finite" in refused(tmp_path, content)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("names", "ab", "names: must be a list of texts, found 'ab'"),
        ("names", [], "names: must be a list of texts, found []"),
        ("names", ["a", 3], "names: must be a list of texts"),
        ("names", ["a", torch.zeros(3)], "names: must be a list of texts"),
        ("names", ["a", "\ud800"], "names: must be a list of texts"),
        ("category_ids", [1, 1], "category_ids: must be a list of different whole numbers"),
        ("category_ids", [1, float("inf")], "category_ids: must be a list of different whole numbers"),
        ("category_ids", [1, 10**30], "category_ids: must be a list of different whole numbers"),
        ("category_ids", [1, True], "category_ids: must be a list of different whole numbers"),
        ("image_size", 10**9, "image_size: must be a whole number from 1 to 16384, found 1000000000"),
        ("image_size", 0, "image_size: must be a whole number"),
        ("image_size", float("inf"), "image_size: must be a whole number"),
        ("image_size", "64", "image_size: must be a whole number"),
        ("image_size", torch.zeros(1, device="meta"), "image_size: must be a whole number"),
        ("center_crop", float("nan"), "center_crop: must be a number above 0 and up to 1, found nan"),
        ("center_crop", 1e9, "center_crop: must be a number above 0 and up to 1"),
        ("metrics", {"AP": "\x1b[2J"}, "metrics: must be numbers by their names"),
        ("metrics", {3: 0.5}, "metrics: must be numbers by their names"),
        ("value_range", [1.0], "value_range: must be two numbers, the lower one first"),
        ("value_range", [5, 5], "value_range: must be two numbers, the lower one first"),
        ("value_range", [0.0, float("inf")], "value_range: must be two numbers, the lower one first"),
        ("value_range", "wide", "value_range: must be two numbers, the lower one first"),
        ("instances", 5, "is an incomplete checkpoint"),
        ("instances", {"members": [[float("inf"), 1]]}, "is an incomplete checkpoint"),
        ("definition", None, "is an incomplete checkpoint"),
    ],
)
def test_entries(tmp_path, good, key, value, message):
    assert message in refused(tmp_path, {**good, key: value})


def test_a_definition_that_asks_for_more_than_the_file_has(tmp_path, good):
    """Any model may have 500 million values, but not with a file of a hundred kilobytes."""
    content = copy.deepcopy(good)
    content["definition"]["backbone"]["scale"]["width"] = 100.0
    message = refused(tmp_path, content)
    assert "the model would have more than " in message
    assert int(message.rsplit("than ", 1)[1].split()[0].replace(",", "")) < 10**7


def test_an_archive_that_grows(tmp_path, good):
    """A gigabyte of zeros in a megabyte of file."""
    torch.save(good, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as source, zipfile.ZipFile(tmp_path / "best.pt", "w") as bomb:
        for entry in source.infolist():
            bomb.writestr(entry.filename, source.read(entry))
        bomb.writestr("good/data/bomb", bytes(2**24), compress_type=zipfile.ZIP_DEFLATED)
    message = message_of(load_checkpoint, tmp_path / "best.pt")
    assert message.endswith("has compressed or overlapping entries, which PyTorch does not write; refused")
