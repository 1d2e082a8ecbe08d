"""A model, a data set and recipes that are small enough to train in a second."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detect.config.base import build
from detect.config.data import DataConfig, SplitConfig
from detect.config.recipe import DetectionRecipe
from detect.data.shapes import generate_shapes
from detect.runtime.interruption import StopRequest
from detect.training.loop import train
from detect.training.settings import RunSettings

TINY = """\
name: tiny
defaults: {downsample: spd}
backbone:
  - {name: stem, module: Stem, args: {out_channels: 8}, reduction: 2}
  - {name: down2, module: Downsample, args: {out_channels: 8}, reduction: 4}
  - {name: c2, module: C3, args: {out_channels: 16}}
  - {name: down3, module: Downsample, args: {out_channels: 16}, reduction: 8}
  - {name: c3, module: C3, args: {out_channels: 24}}
neck:
  - {name: down4, module: Downsample, args: {out_channels: 24}, reduction: 16}
  - {name: c4, module: C3, args: {out_channels: 32}}
  - {name: down5, module: Downsample, args: {out_channels: 32}, reduction: 32}
  - {name: c5, module: C3, args: {out_channels: 32}}
head:
  - name: detect
    module: AnchorDetect
    from: [c3, c4, c5]
    args: {anchors_px: [[[8, 8], [12, 12]], [[20, 20], [30, 30]], [[45, 45], [64, 64]]]}
"""

STILL = {
    "mosaic": 0.0,
    "translate": 0.0,
    "scale": 0.0,
    "flip_left_right": 0.0,
    "hsv_hue": 0.0,
    "hsv_saturation": 0.0,
    "hsv_value": 0.0,
}
"""Of ``augment``: each image as it is."""

SIZES = (8, 4, 1)
"""Images of the training, validation and test splits of ``make_shapes``."""


def write_model(folder: Path, text: str = TINY) -> str:
    """A model YAML in ``folder``; gives its path."""
    path = folder / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def fold_norms(model: nn.Module) -> None:
    """Give a model the norms of an exported file: only a shift is left of each."""
    random = torch.Generator().manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            nn.init.ones_(norm.weight)
            nn.init.normal_(norm.bias, generator=random)


def make_shapes(root: Path, sizes: tuple[int, int, int] = SIZES, image_size: int = 64) -> DataConfig:
    """The embedded data set with a handful of images, generated in ``root``."""
    generate_shapes(root, *sizes, image_size=image_size)
    return shapes_at(root)


def shapes_at(root: Path) -> DataConfig:
    """The data set that ``make_shapes`` has made."""
    splits = {name: SplitConfig(f"images/{name}", f"annotations/{name}.json") for name in ("train", "val", "test")}
    return DataConfig("shapes", str(root), splits)


def make_recipe(**changes: Any) -> DetectionRecipe:
    """Four epochs of two batches of 64 px, in float32, without surprises; ``changes`` are the recipe's keys."""
    plain: dict[str, Any] = {
        "epochs": 4,
        "batch_size": 4,
        "nominal_batch_size": 4,
        "image_size": 64,
        "workers": 0,
        "precision": "fp32",
        "optimizer": {"name": "adamw", "lr": 0.003, "warmup_min_steps": 1},
        "ema": {"decay": 0.9, "ramp_steps": 2},
        "anchors": {"fit": "never"},
    }
    return build(DetectionRecipe, plain | changes, "here")


def make_settings(folder: Path, data: DataConfig, **changes: Any) -> RunSettings:
    """A run of the tiny model in ``folder/run``; ``changes`` are the recipe's keys."""
    return RunSettings(write_model(folder), data, make_recipe(**changes), folder / "run")


class EndsWhenAsked(StopRequest):
    """A wish to end a run, which a run asks for after each update and before each validation.

    Args:
        times: it is there when it is asked for so often.
    """

    def __init__(self, times: int) -> None:
        super().__init__()
        self._times = times

    def __bool__(self) -> bool:
        self._times -= 1
        return self._times <= 0


def train_in_pieces(settings: RunSettings, times: int) -> int:
    """A run that is ended, and resumed, again and again, each time when it asks for the ``times``-th time.

    Returns:
        How often it was ended.
    """
    pieces = 0
    while True:
        try:
            train(settings, EndsWhenAsked(times))
        except KeyboardInterrupt:
            pieces += 1
            settings = dataclasses.replace(settings, resume=True)
        else:
            return pieces
