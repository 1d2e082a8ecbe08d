from __future__ import annotations

from pathlib import Path

import pytest

from detect.errors import InputError
from detect.models.catalog import WEIGHTS, find_weights, shipped_weights


def test_names_are_those_of_the_files() -> None:
    assert find_weights(Path("yolov5n-spd-bccd")) == WEIGHTS / "yolov5n-spd-bccd.pt"
    assert shipped_weights().keys() >= {"yolov5n-spd-bccd", "yolov5n-spd-deeppcb", "yolov5n-spd-shapes"}


@pytest.mark.parametrize("path", ["best.pt", "runs/best", "/best", ""])
def test_paths_are_left_alone(path: str) -> None:
    """Whether there is such a file is found out when it is read."""
    assert find_weights(Path(path)) == Path(path)


def test_a_file_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = Path("yolov5n-spd-bccd")
    name.mkdir()
    assert find_weights(name) == WEIGHTS / "yolov5n-spd-bccd.pt"  # a folder is no checkpoint
    name.rmdir()
    name.write_bytes(b"")
    assert find_weights(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "yolov5n-spd-bcd",
            r"^'yolov5n-spd-bcd' is neither a file nor one of weights/; did you mean '.*-bccd'\?",
        ),
        ("x", r"allowed: .*yolov5n-spd-bccd, yolov5n-spd-deeppcb, .*yolov5n-spd-shapes"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_weights(Path(name))
