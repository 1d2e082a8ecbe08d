"""Timing of networks in turn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detect.inference import timing
from detect.papers.sdpoint.network import NetworkRun, network_ms
from detect.papers.sdpoint.transform import PLAIN, Instance, instance_of, use_instance
from tests.papers.sdpoint.samples import classifier, detector

CPU = torch.device("cpu")


def test_nothing_to_time() -> None:
    assert network_ms([], CPU) == []


def test_larger_images_take_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundred times the pixels, in two kinds of models; the instance that ran before runs again."""
    monkeypatch.setattr(timing, "MAX_ROUNDS", 5)
    half = Instance(1, 0.5)
    for model in (detector(tmp_path).model, classifier(tmp_path).model):
        use_instance(model, half)
        small, large = network_ms([NetworkRun(model, PLAIN, (32, 32)), NetworkRun(model, half, (320, 320))], CPU)
        assert 0 < small < large
        assert instance_of(model) == half


def test_slow_networks_are_timed_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run that does not count, then as many rounds as there must be, because time is up after the first."""
    model, sizes = detector(tmp_path).model, []
    model.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape[2]))
    monkeypatch.setattr(timing, "ENOUGH_SECONDS", 0.0)
    network_ms([NetworkRun(model, PLAIN, (32, 32)), NetworkRun(model, PLAIN, (64, 64))], CPU)
    assert sizes == [32, 64] * (1 + timing.MIN_ROUNDS)
