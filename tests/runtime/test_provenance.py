"""What is noted about how something was made."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone

import pytest
import torch

import detect
from detect.runtime.reproducibility import made_with


def test_plain_values_that_say_when_and_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--model", "yolov5n"])
    found = made_with()
    assert json.loads(json.dumps(found)) == found
    assert all(type(value) is str for value in found.values())  # a str of another class is refused by weights_only
    assert (found["detect"], found["torch"]) == (detect.__version__, str(torch.__version__))
    assert found["command"] == "train.py --model yolov5n"
    age = datetime.now(timezone.utc) - datetime.fromisoformat(found["date"])
    assert timedelta(0) <= age < timedelta(seconds=60)
