"""``detect config`` of a section."""

from __future__ import annotations

import argparse

import pytest

from detect.cli import config


def test_a_section_lists_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    config.run(argparse.Namespace(key="ema", json=False))
    lines = capsys.readouterr().out.splitlines()
    keys = [line.split()[1] for line in lines if line.startswith("recipe/detection ")]
    assert keys == ["ema.decay", "ema.ramp_steps"]
