"""Forward passes of the compared networks, timed in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from detect.inference.timing import median_ms
from detect.models.checkpoint import load_checkpoint
from detect.models.model import Model, fuse_conv_bn


def forward_ms(checkpoints: Sequence[Path]) -> list[float]:
    """Milliseconds of a forward pass of each checkpoint: median processor time of one thread.

    One square image of the training's size, fp32, channels last, norms fused. The networks take turns.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return median_ms([_pass(path) for path in checkpoints])
    finally:
        torch.set_num_threads(threads)


def _pass(path: Path) -> Callable[[], float]:
    checkpoint = load_checkpoint(path)
    image = torch.zeros(1, 3, checkpoint.image_size, checkpoint.image_size)
    model = fuse_conv_bn(checkpoint.model).to(memory_format=torch.channels_last)
    return partial(_seconds, model, image.contiguous(memory_format=torch.channels_last))


def _seconds(model: Model, image: Tensor) -> float:
    start = time.process_time()
    with torch.inference_mode():
        model(image)
    return time.process_time() - start
