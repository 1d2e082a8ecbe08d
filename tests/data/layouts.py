"""Folders of data sets, made up."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

YOLO_LINE = "0 0.5 0.5 0.25 0.2\n"


def images(folder: Path, *names: str) -> None:
    """Images of 40 x 30 px; ``a.jpg`` if none is named."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("a.jpg",):
        Image.new("RGB", (40, 30)).save(folder / name)


def write(root: Path, files: dict[str, str]) -> None:
    """Text files by path."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
