"""Opening the network of a file: a checkpoint in PyTorch, or an exported file in its runtime.

PyTorch, which takes seconds to import, is imported for a checkpoint only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detect.errors import InputError
from detect.inference.network import InferenceNetwork
from detect.inference.runtimes.formats import format_of

if TYPE_CHECKING:
    from detect.models.checkpoint import Checkpoint
    from detect.runtime.device import Precision


def is_exported(weights: str | Path) -> bool:
    """True for the name of an exported model, or for a folder with some."""
    return format_of(weights) is not None


def open_network(weights: str | Path | Checkpoint, device: str | int, precision: Precision) -> InferenceNetwork:
    """Open the network of a file; ``InputError`` if the file or the device is not usable.

    Args:
        weights: a checkpoint or its file, or a file or a folder of instances that ``detect export`` wrote.
        device: as for ``Detector``.
        precision: number format of a checkpoint's network; an exported file has its own.
    """
    device = str(device)
    if isinstance(weights, (str, Path)) and (found := format_of(weights)) is not None:
        if precision != "fp32":
            raise InputError(f"{weights}: has the number format that it was exported with; leave the precision out")
        return found.open_network(Path(weights), device)
    from detect.inference.torch_network import open_checkpoint

    return open_checkpoint(weights, device, precision)
