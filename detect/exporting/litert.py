"""LiteRT's ``.tflite`` file, with the metadata and the class names in an archive at its end."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detect.exporting.metadata import describe
from detect.exporting.options import ExportOptions
from detect.exporting.parity import ExportError
from detect.exporting.wrappers import wrapped
from detect.inference.runtimes.formats import metadata_text
from detect.inference.runtimes.litert import LABELS, METADATA
from detect.models.checkpoint import Checkpoint
from detect.models.model import fuse_conv_bn


class _ChannelsLast(nn.Module):
    """A network for images (1, H, W, 3), as cameras and other programs for LiteRT have them; outputs as they are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        found: Tensor | list[Tensor] = self.network(images.permute(0, 3, 1, 2))
        return found


def write(checkpoint: Checkpoint, path: Path, options: ExportOptions) -> None:
    """Write the file, for one image; ``ExportError`` as of ``convert``."""
    assert options.image_size is not None, "it is resolved"
    convert(wrapped(fuse_conv_bn(checkpoint.model), options.raw), options.image_size, path)
    append_metadata(path, describe(checkpoint, options), checkpoint.names)


def convert(network: nn.Module, size: int, path: Path) -> None:
    """Convert a network for images (1, 3, ``size``, ``size``) to a file for (1, ``size``, ``size``, 3).

    Raises:
        ExportError: litert-torch cannot convert it.
    """
    import litert_torch

    module, example = _ChannelsLast(network).eval(), torch.zeros(1, size, size, 3)
    with _own_split(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            litert_torch.convert(module, (example,)).export(str(path))
        except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ExportError(f"litert-torch cannot convert the model: {reason}") from None


def append_metadata(path: Path, metadata: dict[str, str], names: Sequence[str]) -> None:
    """Append the archive with the metadata and the list of classes, which programs that know neither do not see."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(METADATA, metadata_text(metadata))
        archive.writestr(LABELS, "\n".join(names) + "\n")


@contextmanager
def _own_split() -> Iterator[None]:
    """Inside, a division of a tensor is several slices: litert-torch 0.10 fails at one into a single part."""
    from litert_torch.fx_infra import decomp

    level, split = logging.root.level, torch.ops.aten.split_with_sizes.default
    decomp.add_pre_convert_decomp(split, _split)
    try:
        yield
    finally:
        decomp.remove_pre_convert_decomp(split)
        logging.root.setLevel(level)


def _split(x: Any, sizes: list[int], dim: int = 0) -> list[Any]:
    """Parts of ``x`` of these sizes along ``dim``."""
    places = pairwise(accumulate(sizes, initial=0))
    return [torch.ops.aten.slice.Tensor(x, dim, start, end) for start, end in places]
