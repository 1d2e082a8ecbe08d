from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detect.errors import InputError
from detect.models.foreign import yolov5
from detect.models.foreign.tensor_files import TensorFile, read_tensors
from detect.models.foreign.yolov5 import load_yolov5
from detect.models.model import DetectionModel
from tests.models.foreign.yolov5_files import (
    ROWS,
    SPD_ROWS,
    random_model,
    their_state,
    write_pickled_model,
    write_safetensors,
)

NAMES = ["ball", "cube", "cone"]


@pytest.fixture(scope="module")
def nano() -> DetectionModel:
    return random_model("yolov5n", 3)


@pytest.fixture(scope="module")
def state(nano: DetectionModel) -> dict[str, Tensor]:
    return their_state(nano)


def assert_same(found: DetectionModel, model: DetectionModel) -> None:
    """Bit by bit, in float32, statistics and anchors included."""
    first, second = found.state_dict(), model.state_dict()
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        assert torch.equal(first[name], second[name]), name


def load(path: Path, name: str | None = None) -> DetectionModel:
    return load_yolov5(read_tensors(path), path, name)


def test_the_scheme_is_theirs(state: dict[str, Tensor]) -> None:
    """A few names and shapes of the published yolov5n, to pin the tests' own writer."""
    assert state["model.0.conv.weight"].shape == (16, 3, 6, 6)
    assert state["model.1.bn.running_mean"].shape == (32,)
    assert state["model.2.cv1.conv.weight"].shape == (16, 32, 1, 1)
    assert state["model.2.m.0.cv2.conv.weight"].shape == (16, 16, 3, 3)
    assert state["model.6.m.2.cv1.bn.weight"].shape == (64,)
    assert state["model.9.cv2.conv.weight"].shape == (256, 512, 1, 1)
    assert state["model.13.cv3.conv.weight"].shape == (128, 128, 1, 1)
    assert state["model.24.m.2.weight"].shape == (24, 256, 1, 1)
    assert state["model.24.anchors"].shape == (3, 3, 2)
    # 57 convolutions with a norm, of 6 tensors each; the head's 3 with weight and bias; its anchors.
    assert len(state) == 57 * 6 + 3 * 2 + 1


WRITERS: dict[str, Callable[[Path, dict[str, Tensor]], Any]] = {
    "state.pt": lambda path, state: torch.save(OrderedDict(state), path),
    "in-a-checkpoint.pt": lambda path, state: torch.save({"epoch": 3, "state_dict": state}, path),
    "parallel.pth": lambda path, state: torch.save({f"module.{key}": value for key, value in state.items()}, path),
    "half.pt": lambda path, state: torch.save(
        {k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path
    ),
    "model.pt": lambda path, state: write_pickled_model(path, state, names=NAMES, nc=3),
    "state.safetensors": write_safetensors,
}


@pytest.mark.parametrize("file", WRITERS)
def test_read_back_bit_equal(tmp_path: Path, nano: DetectionModel, state: dict[str, Tensor], file: str) -> None:
    WRITERS[file](tmp_path / file, state)
    found = load(tmp_path / file, "yolov5n")
    assert_same(found, nano)
    assert found.head.anchors_px[1, 0].tolist() == [7 * 8, 8 * 8]  # in pixels; the file has [3.5, 4] cells of 16
    assert state["model.24.anchors"][1, 0].tolist() == [3.5, 4]


def test_same_outputs(tmp_path: Path, nano: DetectionModel, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "state.pt")
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for a, b in zip(load(tmp_path / "state.pt", "yolov5n").eval()(image), nano.eval()(image), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "rows"),
    [("yolov5n", ROWS), ("yolov5n-spd", SPD_ROWS), pytest.param("yolov5s", ROWS, marks=pytest.mark.slow)],
)
def test_the_member_is_found(tmp_path: Path, name: str, rows: dict[int, str]) -> None:
    model = random_model(name, 2)
    torch.save(their_state(model, rows), tmp_path / "x.pt")
    found = load(tmp_path / "x.pt")
    assert found.definition.name == name
    assert_same(found, model)


def test_the_average_is_taken_where_there_is_one(
    tmp_path: Path, nano: DetectionModel, state: dict[str, Tensor]
) -> None:
    """Checkpoints of a training have both; what is used is the average."""
    raw = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({"model": raw, "ema": state}, tmp_path / "last.pt")
    assert_same(load(tmp_path / "last.pt", "yolov5n"), nano)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (NAMES, ("ball", "cube", "cone")),
        (dict(enumerate(NAMES)), ("ball", "cube", "cone")),
        ({1: "x"}, None),
        ([1, 2], None),
    ],
)
def test_class_names(tmp_path: Path, names: Any, expected: tuple[str, ...] | None) -> None:
    path = write_pickled_model(tmp_path / "model.pt", {"0.weight": torch.zeros(1)}, names=names)
    assert read_tensors(path).names == expected


@pytest.mark.slow
def test_a_model_that_is_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "state.pt")
    assert load(tmp_path / "state.pt", "yolov5n").definition.name == "yolov5n"
    with pytest.raises(
        InputError,
        match=r"weights of another model than yolov5s: backbone\.stem: .* is \(32, 3, 6, 6\), in the file \(16, 3",
    ):
        load(tmp_path / "state.pt", "yolov5s")
    with pytest.raises(
        InputError,
        match=r"of another model than cspdarknet53\+panet: the file has 19 modules with weights, the model \d+ rows",
    ):
        load(tmp_path / "state.pt", "cspdarknet53+panet")


def drop(*keys: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {key: tensor for key, tensor in state.items() if key not in keys}


def add(**tensors: Tensor) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {**state, **{key.replace("__", "."): tensor for key, tensor in tensors.items()}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: {"fc.weight": torch.zeros(1)}, r"'fc\.weight' is no weight of the YOLOv5 family"),
        (lambda _: {"model.0.conv.weight": torch.zeros(1)}, "its last module is no head of YOLOv5"),
        (add(model__24__m__0__bias=torch.zeros(25)), r"detect\.predict\.0\.bias is \(24,\), in the file \(25,\)"),
        (drop("model.24.m.0.bias"), r"head\.detect: the file has nothing for .*predict\.0\.bias"),
        (drop(*(f"model.24.m.{i}.bias" for i in range(3))), "its last module is no head of YOLOv5"),
        (
            drop("model.4.bn.weight", "model.4.cv3.bn.weight"),
            r"backbone\.c3: the file has nothing for .*c3\.fuse\.norm\.weight",
        ),
        (drop("model.24.m.1.weight"), r"head\.detect: the file has nothing for .*predict\.1\.weight"),
        (
            add(model__2__cv4__conv__weight=torch.zeros(1)),
            r"backbone\.c2: is a C3, which has nothing for 'cv4\.conv\.weight'",
        ),
        (add(model__2__m__1__cv1__conv__weight=torch.zeros(1)), r"backbone\.c2: the model has no .*blocks\.1\.conv1"),
        (add(model__2__cv1__conv__weight=torch.zeros(3, 32, 1, 1)), "cv1 and cv2 have other shapes"),
        (add(model__24__anchors=torch.ones(2, 3, 2)), r"anchors: are \(2, 3, 2\), must be \(3, 3, 2\)"),
        (add(model__24__anchors=-torch.ones(3, 3, 2)), r"anchors_px: must be 3 lists"),
        (add(model__0__bn__weight=torch.full((16,), torch.nan)), r"stem\.conv\.norm\.weight is not finite"),
        (
            add(model__0__bn__running_var=torch.full((16,), -0.5)),
            r"stem\.conv\.norm\.running_var has a negative variance \(1 tensors in all\)",
        ),
    ],
)
def test_refused(
    state: dict[str, Tensor], change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_yolov5(TensorFile(change(state), None), Path("x.pt"), "yolov5n")


@pytest.fixture
def small_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two smallest members alone."""
    monkeypatch.setattr(yolov5, "FAMILY", yolov5.FAMILY[:2])


@pytest.mark.usefixtures("small_family")
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            add(model__0__conv__weight=torch.zeros(17, 3, 6, 6)),
            r"18 of 19 rows fit: backbone\.stem: .* is \(16, 3, 6, 6\), in the file \(17, 3, 6, 6\)",
        ),
        (
            drop("model.4.cv3.bn.weight"),
            r"18 of 19 rows fit: backbone\.c3: the file has nothing for .*fuse\.norm\.weight",
        ),
        (add(model__24__m__0__bias=torch.zeros(25)), r"18 of 19 rows fit: head\.detect: .*in the file \(25,\)"),
    ],
)
def test_the_nearest_of_the_family_says_why(
    state: dict[str, Tensor], change: Callable[[dict[str, Tensor]], dict[str, Tensor]], complaint: str
) -> None:
    with pytest.raises(
        InputError, match=rf"^x\.pt: fits no model of the YOLOv5 family; nearest is yolov5n, of which {complaint}$"
    ):
        load_yolov5(TensorFile(change(state), None), Path("x.pt"))


@pytest.mark.usefixtures("small_family")
def test_the_nearest_may_be_any_member() -> None:
    wrong = add(model__0__conv__bn__weight=torch.zeros(3))(their_state(random_model("yolov5n-spd", 2), SPD_ROWS))
    with pytest.raises(InputError, match=r"nearest is yolov5n-spd, of which 18 of 19 rows fit: backbone\.stem: "):
        load_yolov5(TensorFile(wrong, None), Path("x.pt"))


@pytest.mark.usefixtures("small_family")
def test_none_of_the_family(state: dict[str, Tensor]) -> None:
    """A module without any weights, which nothing comes near to."""
    wrong = {key: tensor for key, tensor in state.items() if not key.startswith("model.9.")}
    with pytest.raises(
        InputError,
        match=r"x\.pt: fits none of yolov5n, yolov5n-spd \(yolov5n: the file has 18 modules with weights, "
        r"the model 19 rows\); name the model that fits with --model$",
    ):
        load_yolov5(TensorFile(wrong, None), Path("x.pt"))


def test_files_without_anchors_have_those_of_the_model(state: dict[str, Tensor]) -> None:
    found = load_yolov5(TensorFile(drop("model.24.anchors")(state), None), Path("x.pt"), "yolov5n")
    assert found.head.anchors_px[0].tolist() == [[10, 13], [16, 30], [33, 23]]
