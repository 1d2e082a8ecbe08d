"""Small model YAMLs for the model tests."""

from __future__ import annotations

from pathlib import Path

from detect.models.catalog import find_definition
from detect.models.definition import ModelDefinition

TINY = """
name: tiny
backbone:
  - {name: stem, module: Conv, args: {out_channels: 8, kernel_size: 3, stride: 2}, reduction: 2}
  - {name: down, module: Downsample, args: {out_channels: 16}}
head:
  - {name: detect, module: AnchorDetect, from: [stem, down], args: {anchors_px: [[[4, 4]], [[9, 8]]]}}
"""
"""Two levels, one anchor each."""


TWO_POINTS = """
name: two-points
backbone:
  - {name: stem, module: Stem, args: {out_channels: 8}, reduction: 2}
  - {name: c1, module: C3, args: {out_channels: 8}}
  - {name: fine, module: Conv, args: {out_channels: 8}}
  - {name: down, module: Downsample, args: {out_channels: 8}, reduction: 4}
  - {name: c2, module: C3, args: {out_channels: 8}}
  - {name: coarse, module: Conv, args: {out_channels: 8}}
head:
"""
"""Two points (SDPoint), one behind each C3; one of the two heads below completes it."""
TWO_POINTS_BOXES = """\
  - {name: detect, module: AnchorDetect, from: [fine, coarse], args: {anchors_px: [[[4, 4]], [[9, 8]]]}}
"""
TWO_POINTS_CLASSES = "  - {name: classify, module: Classify}\n"


def write_model(folder: Path, text: str) -> Path:
    """A model YAML in a folder."""
    path = folder / "model.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def write_rows(folder: Path, *rows: str) -> Path:
    """A model YAML whose backbone has these rows."""
    return write_model(folder, "name: rows\nbackbone:\n" + "".join(f"  - {{{row}}}\n" for row in rows))


def read_model(path: Path) -> ModelDefinition:
    """The model that a YAML's top level describes."""
    return find_definition(str(path))
