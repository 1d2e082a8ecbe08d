"""Checkpoints for distribution: half precision, without training state and without paths of the machine."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from detect.analysis.profile import profile_graph
from detect.errors import InputError, visible
from detect.models.checkpoint import Checkpoint, load_checkpoint, rewrite_checkpoint
from detect.models.graph import Graph

SUFFIXES = (".pt", ".safetensors")
"""Suffixes of the files of a shipped checkpoint."""


def ship_checkpoint(source: Path, out: Path) -> list[str]:
    """Write a checkpoint in half precision, without the state of its training and without the paths of its machine.

    Returns:
        Rows of its model card (``weights/README.md``) that follow from the file, as Markdown.

    Raises:
        InputError: the checkpoint is not usable, or ``out`` is not another file that ends in .pt or .safetensors.
    """
    if out.suffix not in SUFFIXES:
        raise InputError(f"--out {out}: must end in {' or '.join(SUFFIXES)}")
    if out.resolve() == source.resolve():
        raise InputError(f"--out {out}: is the checkpoint itself")
    checkpoint = load_checkpoint(source)
    shipped = replace(checkpoint, training=None, provenance=without_machine(checkpoint.provenance))
    rewrite_checkpoint(out, shipped, half=True)
    return [
        card_row("sha256", f"`{sha256(out)}`"),
        card_row("model", _model(shipped)),
        card_row("command", _training(shipped)),
    ]


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def without_machine(value: Any) -> Any:
    """Copy plain values with each absolute path cut to its last part; ``command`` entries are command lines."""
    if isinstance(value, dict):
        return {key: _command(item) if key == "command" else without_machine(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_machine(item) for item in value]
    return _last_part(value) if isinstance(value, str) else value


def _command(line: str) -> str:
    try:
        words = shlex.split(line)
    except ValueError:  # an unbalanced quote
        words = line.split()
    return shlex.join(_last_part(word) for word in words)


def _last_part(text: str) -> str:
    """``/a/b`` and ``~/a/b`` as ``b``, ``KEY=/a/b`` as ``KEY=b``; other texts as they are."""
    key, equals, path = text.rpartition("=")
    kind = PurePosixPath if "/" in path else PureWindowsPath
    is_absolute = kind(path).is_absolute() or PureWindowsPath(path).is_absolute() or path.startswith("~")
    return f"{key}{equals}{PureWindowsPath(path).name}" if is_absolute else text


def card_row(name: str, text: str) -> str:
    """Return a row of a model card; texts of a checkpoint may be a stranger's."""
    return f"| {name} | {visible(text).replace('|', chr(92) + '|').replace('<', '&lt;')} |"


def _model(checkpoint: Checkpoint) -> str:
    definition, size, num_classes = checkpoint.model.definition, checkpoint.image_size, len(checkpoint.names)
    with torch.device("meta"):
        profile = profile_graph(Graph(definition, num_classes), size, num_classes)
    names = f"{num_classes} classes ({', '.join(checkpoint.names)})"
    cost = f"{profile.parameters:,} parameters, {profile.macs / 1e9:.3f} G multiply-adds at {size} px"
    return f"`{definition.name}`, {names}: {cost}"


def _training(checkpoint: Checkpoint) -> str:
    origin = checkpoint.provenance
    about = [f"{key} {origin[key]}" for key in ("detect", "torch", "epoch", "train_images", "date") if key in origin]
    command = str(origin.get("command", "?"))
    shown = command if command.startswith("detect ") else f"python {command}"  # of a script in tools/
    return f"`{shown}` ({', '.join(about)})"
