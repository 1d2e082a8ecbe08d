"""Runs that are compared between one process and two, and the work of each of the two processes."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from detect.models.build import build_model
from detect.models.model import network_input
from detect.runtime.distributed import (
    all_gather,
    all_reduce_sum,
    barrier,
    broadcast_text,
    init_distributed,
    main_process_first,
    num_processes,
    rank,
    rank_slice,
    shard,
)
from detect.structures import Batch, Targets
from detect.training.batch_norms import SyncedBatchNorm2d, measure_folded_norms, prepare_norms
from detect.training.loop import train
from detect.training.settings import RunSettings
from tests.training import test_classification as classes
from tests.training.small import STILL, TINY, fold_norms, make_settings, shapes_at, write_model

# The rate is low, because at higher ones the rounding of other sums grows by itself: one thread against two as well.
SGD = {"name": "sgd", "lr": 0.002, "warmup_min_steps": 1}
CHANGES: dict[str, dict[str, Any]] = {
    # Batches of 3 are shared as 1 and 2, the last one of 2 images as 1 and 1.
    "uneven": {"epochs": 2, "batch_size": 3, "nominal_batch_size": 3, "augment": {"mosaic": 0.5, "close_mosaic": 1}},
    "strategies": {
        "epochs": 2,
        "batch_size": 4,
        "nominal_batch_size": 8,
        "augment": STILL,
        "multi_scale": 0.5,
        "sdpoint": {"ratios": [0.5], "norm_batches": 2, "affine": "own"},
        "trd": {"resolution": 32, "probability": 0.5, "exact": True, "guard": 0},
    },
    # Of the shares of two processes half are reduced, as of the whole, but not the same half.
    "parts": {"epochs": 1, "augment": STILL, "trd": {"resolution": 32, "variant": "batch"}},
}


def runs(folder: Path, data: Path, names: tuple[str, ...]) -> dict[str, RunSettings]:
    """The runs of these names.

    Args:
        folder: where they go.
        data: has the folders ``shapes`` and ``colours``.
        names: of ``CHANGES``, or ``classes``.
    """
    folder.mkdir(exist_ok=True)
    shapes = shapes_at(data / "shapes")
    settings = {name: make_settings(folder, shapes, **{"optimizer": SGD, **change}) for name, change in CHANGES.items()}
    augment = {"crop": "pad", "flip_left_right": 0.5, "mixup": 0.5, "cutmix": 0.5}
    colours = classes.classes_at(data / "colours")
    settings["classes"] = classes.make_settings(folder, colours, epochs=1, batch_size=7, augment=augment)
    return {name: dataclasses.replace(settings[name], out=folder / name) for name in names}


def check_exchange() -> None:
    """What ``detect.runtime.distributed`` says in two processes."""
    own = rank()
    assert num_processes() == 2
    assert [rank_slice(7), rank_slice(1)] == [[slice(0, 3), slice(0, 0)], [slice(3, 7), slice(0, 1)]][own]
    assert shard(range(5)) == [range(0, 5, 2), range(1, 5, 2)][own]
    assert all_reduce_sum([own + 1, 0.1]) == [3.0, 0.2]
    parts = all_gather(np.full((own, 2), own + 0.5))
    assert [part.tolist() for part in parts] == [[], [[1.5, 1.5]]]
    assert [part.tolist() for part in all_gather(np.zeros(0, bool))] == [[], []]
    assert broadcast_text(f"dossier-\udcff é {own}") == "dossier-\udcff é 0"
    before = [] if own else [1]
    with main_process_first():
        before.append(2)
    barrier("the end of the test")
    assert before == [[1, 2], [2]][own]


def check_norms() -> None:
    """The norm of two shares of a batch is that of the batch, with its gradients and statistics."""
    torch.manual_seed(0)
    alone = nn.BatchNorm2d(3, momentum=0.3).double()
    nn.init.uniform_(alone.weight)
    x = (torch.randn(5, 3, 4, 6).double() * 2 + 100).requires_grad_()
    shared = copy.deepcopy(alone)
    prepare_norms(shared)
    assert type(shared) is SyncedBatchNorm2d
    share = x.detach()[rank_slice(5)].requires_grad_()
    for _ in range(2):
        whole, part = alone(x), shared(share)
        (whole * whole.detach().sin()).sum().backward()
        (part * part.detach().sin()).sum().backward()
    torch.testing.assert_close(part, whole[rank_slice(5)])
    torch.testing.assert_close(share.grad, x.grad[rank_slice(5)])
    for mine, expected in zip(shared.parameters(), alone.parameters(), strict=True):
        dist.all_reduce(mine.grad)
        torch.testing.assert_close(mine.grad, expected.grad)
    for mine, expected in zip(shared.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(mine, expected)
    torch.testing.assert_close(shared.eval()(share), alone.eval()(share))
    empty = shared.train()(x.detach()[: 3 * rank()])  # a process may have no image of a part
    assert empty.shape == (3 * rank(), 3, 4, 6)
    shared.load_state_dict(alone.state_dict())
    one_value = x.detach()[: rank(), :, :1, :1]  # in one of the processes only
    torch.testing.assert_close(shared(one_value), alone(one_value))
    torch.testing.assert_close(shared.running_var, alone.running_var)
    # One value in each process, v and v + 1: the mean is half from either, the variance 1/4.
    two = shared(x.detach()[:1, :, :1, :1] + rank())
    signs = (rank() - 0.5) / (0.25 + shared.eps) ** 0.5 * shared.weight + shared.bias
    torch.testing.assert_close(two, signs[None, :, None, None])


def check_folded_norms(folder: Path) -> None:
    """Statistics of folded norms are those of both shares of a batch, 2 and 3 images, in both processes."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    model = build_model(write_model(folder, TINY.replace("downsample: spd", "downsample: stride")), 3)
    fold_norms(model)
    images = torch.randint(256, (5, 64, 64, 3), dtype=torch.uint8)
    measure_folded_norms(model, Share(images[rank_slice(5)]), 5, torch.device("cpu"))
    stem = model.graph.layers["stem"].conv
    with torch.no_grad():
        y = stem.conv(network_input(images, torch.device("cpu")))
    torch.testing.assert_close(stem.norm.running_mean, y.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(stem.norm.running_var, y.var(dim=(0, 2, 3), correction=0))


class Share:
    """An epoch of one batch of these images (B, H, W, 3) uint8."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return 1

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        nothing = torch.zeros(0, dtype=torch.int64)
        yield Batch(self.images, Targets(nothing, nothing, torch.zeros(0, 4)), torch.arange(len(self.images)))


def work(rank: int, port: int, folder: Path, data: Path, names: tuple[str, ...]) -> None:
    """Check the exchange and train the ``runs``, as process ``rank`` of two."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with init_distributed():
        check_exchange()
        check_norms()
        check_folded_norms(folder / f"folded{rank}")
        with main_process_first():
            each = runs(folder, data, names)
        barrier("the models' files")  # which the second process has written once more
        for settings in each.values():
            train(settings)
