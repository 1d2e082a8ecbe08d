"""The data config of a data set that was made of another one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detect.config.base import dump_yaml, to_plain
from detect.config.data import DataConfig, SplitConfig
from detect.data.recognition import Format
from detect.runtime.files import write_text

CONFIG = "data.yaml"
"""Its file, in the folder of the new data set."""


def write_data_config(
    folder: Path,
    source: DataConfig,
    command: str,
    kind: Format,
    splits: Mapping[str, SplitConfig],
    names: tuple[str, ...] | None,
) -> None:
    """Write the data config.

    Args:
        folder: of the new data set.
        source: the data set that it was made of, whose name, treatment of background and range of values it has.
        command: of ``tools/data.py``, which made it.
        kind: its format.
        splits: its splits.
        names: K class names, where the format does not say them or some of them are wanted.
    """
    content: dict[str, Any] = {"name": source.name, "root": ".", "format": kind}
    if names is not None:
        content["names"] = list(names)
    if source.range is not None:
        content["range"] = to_plain(source.range)
    if source.max_pixels != DataConfig.max_pixels:
        content["max_pixels"] = source.max_pixels
    if source.background != "keep":
        content["background"] = source.background
    content["splits"] = {
        split: {key: value for key, value in vars(section).items() if value is not None}
        for split, section in splits.items()
    }
    write_text(folder / CONFIG, f"# Made by tools/data.py {command}.\n{dump_yaml(content)}")
