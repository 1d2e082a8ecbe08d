"""Properties of the loaders of training images, the same in detection and in classification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

from detect.data.classification.loading import ClassTrainingLoader
from detect.data.detection.loading import TrainingLoader
from detect.structures import Batch
from tests.data.classification import test_loading as classification
from tests.data.detection import test_loading as detection


class Loading(NamedTuple):
    """A task's way to load 16 images: its loader of a recipe, the bytes of a batch, a recipe without augmentation."""

    loader: Callable[..., Any]
    content: Callable[[Batch], tuple[bytes, ...]]
    plain: Any


@pytest.fixture(
    scope="module",
    params=[
        (detection, TrainingLoader, detection.PLAIN),
        (classification, ClassTrainingLoader, classification.STILL),
    ],
    ids=["detection", "classification"],
)
def loading(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loading:
    task, loader, plain = request.param
    table = task.table_of(tmp_path_factory.mktemp("images"), 16)
    return Loading(lambda *augment, **changes: loader(table, task.recipe(*augment, **changes)), task.content, plain)


def test_last_batch_is_dropped_if_not_full(loading: Loading) -> None:
    assert [len(batch.rows) for batch in loading.loader(loading.plain, batch_size=6).epoch(0)] == [6, 6]
    assert [len(batch.rows) for batch in loading.loader(loading.plain, batch_size=99).epoch(0)] == [16]


def test_workers_change_nothing(loading: Loading) -> None:
    """Bit-identical batches, over two epochs of the same worker processes; and another epoch is another."""
    alone, shared = (loading.loader(workers=workers) for workers in (0, 2))
    epochs = []
    for epoch in (0, 1):
        epochs.append([loading.content(batch) for batch in alone.epoch(epoch)])
        assert [loading.content(batch) for batch in shared.epoch(epoch)] == epochs[-1]
    assert not set(epochs[0]) & set(epochs[1])


def test_seed_changes_everything(loading: Loading) -> None:
    first, second = (next(loading.loader(seed=seed).epoch(0)) for seed in (1, 2))
    assert first.rows.tolist() != second.rows.tolist()


def test_epochs_can_be_repeated_and_left_early(loading: Loading) -> None:
    loader = loading.loader()
    whole = [loading.content(batch) for batch in loader.epoch(1)]
    assert loading.content(next(loader.epoch(1))) == whole[0]
    assert [loading.content(batch) for batch in loader.epoch(1)] == whole


def test_loading_leaves_the_global_random_state_alone(loading: Loading) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3).tolist()
    torch.manual_seed(0)
    list(loading.loader().epoch(0))
    assert torch.rand(3).tolist() == expected
