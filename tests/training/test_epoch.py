"""One pass over batches made by hand."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch

from detect.errors import InputError
from detect.losses.detection import DetectionLoss
from detect.models.build import build_model
from detect.structures import Batch, Targets
from detect.training.epoch import train_epoch
from detect.training.optimizer import Schedule, build_ema, build_optimizer
from detect.training.recorder import ComputeMeter
from detect.training.state import TrainState, set_training_mode
from detect.training.strategy import MultiScale, Strategy
from tests.training.small import make_recipe, write_model


class HandMade:
    """Batches instead of a ``TrainingLoader``; ``images_of`` are the indices of ``SCENE``'s images in each."""

    def __init__(self, *images_of):
        self.batches = [make_batch(indices) for indices in images_of]

    def __len__(self):
        return len(self.batches)

    def epoch(self, number, start=0):
        yield from self.batches[start:]


def make_batch(indices):
    """Random images with one box of 20 x 20 px each, shifted by whole cells of the coarsest level (32 px).

    So each image has equally many matches on each level, and a mean over the matches of a large batch is the mean of
    the means of its parts.
    """
    images, boxes = [], []
    for i in indices:
        images.append(torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=torch.manual_seed(i)))
        left, top = 6 + 32 * (i % 2), 6 + 32 * (i // 2 % 2)
        boxes.append([left, top, left + 20, top + 20])
    count = len(indices)
    targets = Targets(torch.arange(count), torch.arange(count) * 0 + 1, torch.tensor(boxes, dtype=torch.float32))
    return Batch(torch.stack(images), targets, torch.tensor(indices))


def make_state(tmp_path, recipe, batches, ema=False, strategies=()):
    """The tiny model, ready to learn in float32."""
    torch.manual_seed(0)
    model = build_model(write_model(tmp_path), num_classes=2)
    accumulate = recipe.nominal_batch_size // recipe.batch_size
    return TrainState(
        model=model,
        network=model,
        ema=build_ema(model, recipe.ema) if ema else None,
        criterion=DetectionLoss(recipe.loss, model.head, recipe.image_size),
        optimizer=build_optimizer(model, recipe.optimizer, recipe.nominal_batch_size),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        schedule=Schedule(recipe.optimizer, -(-batches // accumulate), recipe.epochs),
        accumulate=accumulate,
        device=torch.device("cpu"),
        precision="fp32",
        meter=ComputeMeter(model.graph, num_classes=2),
        strategies=strategies,
    )


LOSSES = ["loss/box", "loss/objectness", "loss/classes"]
SGD = {"name": "sgd", "lr": 0.01, "momentum": 0.9, "warmup_epochs": 0, "schedule": "constant", "clip_norm": 0}


def still_norms(monkeypatch):
    """Norms that keep their statistics, so that an image's output does not depend on its batch."""

    def evaluate_norms(model):
        set_training_mode(model)
        model.eval()

    monkeypatch.setattr("detect.training.epoch.set_training_mode", evaluate_norms)


def weights_after(tmp_path, loader, batch_size, nominal=4, **changes):
    """The weights and losses after an epoch."""
    recipe = make_recipe(batch_size=batch_size, nominal_batch_size=nominal, optimizer=SGD, epochs=1, **changes)
    state = make_state(tmp_path, recipe, len(loader))
    losses = train_epoch(state, loader)
    return dict(state.model.named_parameters()), losses


@torch.no_grad()
def assert_close(found, expected):
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, at=name: f"{at}: {text}")


def test_accumulated_batches_are_one_large_batch(tmp_path, monkeypatch):
    still_norms(monkeypatch)
    parts, losses = weights_after(tmp_path, HandMade((0, 1), (2, 3)), batch_size=2)
    whole, expected = weights_after(tmp_path, HandMade((0, 1, 2, 3)), batch_size=4)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert_close(parts, whole)
    start = dict(make_state(tmp_path, make_recipe(), 1).model.named_parameters())
    assert not torch.allclose(whole["graph.layers.stem.conv.conv.weight"], start["graph.layers.stem.conv.conv.weight"])


def test_what_is_left_at_the_end_is_an_update_too(tmp_path, monkeypatch):
    """Three batches of 2 at 4 images per update: updates of 4 and of 2 images."""
    still_norms(monkeypatch)
    recipe = make_recipe(batch_size=2, nominal_batch_size=4, optimizer=SGD, epochs=1)
    parts = make_state(tmp_path, recipe, 3)
    train_epoch(parts, HandMade((0, 1), (2, 3), (4, 5)))
    whole = make_state(tmp_path, recipe, 2)
    whole = dataclasses.replace(whole, accumulate=1, schedule=parts.schedule)
    train_epoch(whole, HandMade((0, 1, 2, 3), (4, 5)))
    assert_close(dict(parts.model.named_parameters()), dict(whole.model.named_parameters()))


def test_rates_follow_the_updates_not_the_batches(tmp_path):
    """Epoch 1 of 2 updates each: the updates 2, 2, 3 for its three batches."""
    recipe = make_recipe(batch_size=2, nominal_batch_size=4, epochs=3)
    state = make_state(tmp_path, recipe, 3)
    applied = []
    schedule = state.schedule

    class Noted(Schedule):
        def apply(self, optimizer, update):
            applied.append(update)
            super().apply(optimizer, update)

    noted = Noted(schedule.config, schedule.updates_per_epoch, schedule.epochs)
    train_epoch(dataclasses.replace(state, schedule=noted, epoch=1), HandMade((0, 1), (2, 3), (4, 5)))
    assert applied == [2, 2, 3]
    assert state.optimizer.param_groups[0]["lr"] == schedule.rate(3, "weights")


def test_gradients_are_clipped(tmp_path):
    """Plain SGD at rate 1 moves by the gradient: 0.5 in all once it is clipped."""
    clipped = {**SGD, "momentum": 0, "lr": 1.0, "weight_decay": 0, "clip_norm": 0.5}
    recipe = make_recipe(optimizer=clipped, epochs=1)
    state = make_state(tmp_path, recipe, 1)
    before = [parameter.detach().clone() for parameter in state.model.parameters()]
    train_epoch(state, HandMade((0, 1, 2, 3)))
    moved = [(new.detach() - old).norm() for new, old in zip(state.model.parameters(), before, strict=True)]
    assert torch.stack(moved).norm().item() == pytest.approx(0.5, rel=1e-3)


def test_the_average_is_updated_with_the_weights(tmp_path):
    recipe = make_recipe(batch_size=2, nominal_batch_size=4)
    state = make_state(tmp_path, recipe, 4, ema=True)
    train_epoch(state, HandMade((0, 1), (2, 3), (4, 5), (6, 7)))
    assert state.ema.n_averaged.item() == 2


def test_losses_are_means_over_the_batches(tmp_path):
    """With a rate of 0 nothing changes, so each batch alone tells its part of the mean."""
    still = {**SGD, "lr": 0.0}
    recipe = make_recipe(batch_size=2, nominal_batch_size=2, optimizer=still)

    def losses_of(*images_of):
        return train_epoch(make_state(tmp_path, recipe, len(images_of)), HandMade(*images_of))

    both, first, second = losses_of((0, 1), (2, 3)), losses_of((0, 1)), losses_of((2, 3))
    assert list(both) == [*LOSSES, "compute/gmacs", "compute/full_gmacs"]
    assert both == pytest.approx({name: (first[name] + second[name]) / 2 for name in both}, rel=1e-6)


def test_the_first_batch_is_shown(tmp_path):
    recipe, loader, shown = make_recipe(), HandMade((0, 1), (2, 3)), []
    train_epoch(make_state(tmp_path, recipe, 2), loader, on_first_batch=shown.append)
    assert shown == loader.batches[:1]


def test_multi_scale():
    """Sizes are multiples of 32 within 64 px +- 60 % (rounded: 32, 64 or 96), and the boxes go along."""
    strategy, batch = MultiScale(make_recipe(multi_scale=0.6), 32), make_batch((0, 1))
    images = batch.images.permute(0, 3, 1, 2).float() / 255

    def sizes_of(epoch):
        sizes = []
        for number in range(1, 13):
            ((found, targets),) = strategy.on_batch(images, batch.targets, epoch, number)
            height, width = found.shape[2:]
            assert height == width
            assert targets.boxes_xyxy_px[0].tolist() == pytest.approx([side * height / 64 for side in (6, 6, 26, 26)])
            sizes.append(height)
        return sizes

    sizes = sizes_of(0)
    assert set(sizes) == {32, 64, 96}
    assert sizes_of(0) == sizes  # a function of the seed and the batch
    assert sizes_of(1) != sizes


def test_multi_scale_between_two_sizes():
    """The long side is a multiple of 32 from 70 to 160 px, rounded up: 96, 128 or 160; the short one goes along."""
    strategy = MultiScale(make_recipe(multi_scale_px=(70, 160)), 32)
    images, targets = torch.rand(1, 3, 64, 128), make_batch((0, 1)).targets
    sizes = {tuple(strategy.on_batch(images, targets, 0, number)[0][0].shape[2:]) for number in range(1, 21)}
    assert sizes == {(64, 96), (64, 128), (64, 160)}  # half of 96 and of 160 is 1.5 and 2.5 steps, both near 2


def test_strategies_change_what_the_network_sees(tmp_path):
    recipe = make_recipe(multi_scale=0.6, batch_size=2, nominal_batch_size=2)
    strategy, seen = MultiScale(recipe, 32), []
    state = make_state(tmp_path, recipe, 3, strategies=(strategy,))
    state.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2]))
    loader = HandMade((0, 1), (2, 3), (4, 5))
    train_epoch(state, loader)
    expected = [strategy.on_batch(torch.rand(2, 3, 64, 64), loader.batches[0].targets, 0, n)[0][0] for n in (1, 2, 3)]
    assert seen == [images.shape[2] for images in expected]
    assert len(set(seen)) > 1


class Splits(Strategy):
    """Cuts a batch of four in two, and says so."""

    def on_batch(self, images, targets, epoch, number):
        halves = torch.tensor([0, 3]), torch.tensor([1, 2])
        return [(images[half], targets.of(half)) for half in halves]

    def on_epoch_end(self):
        return {"splits/epochs": 1.0}


def test_parts_of_a_batch_are_one_batch(tmp_path, monkeypatch):
    still_norms(monkeypatch)
    recipe = make_recipe(optimizer=SGD, epochs=1)
    whole, parts = (make_state(tmp_path, recipe, 1, strategies=each) for each in ((), (Splits(),)))
    expected = train_epoch(whole, HandMade((0, 1, 2, 3)))
    values = train_epoch(parts, HandMade((0, 1, 2, 3)))
    assert values == pytest.approx(expected | {"splits/epochs": 1.0}, rel=1e-5)
    assert_close(dict(parts.model.named_parameters()), dict(whole.model.named_parameters()))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(tmp_path, bad):
    """The second batch's loss is not finite: the weights stay as the first one left them."""
    recipe = make_recipe(batch_size=2, nominal_batch_size=2, optimizer=SGD)
    good = make_state(tmp_path, recipe, 2)
    train_epoch(good, HandMade((0, 1)))
    broken = make_state(tmp_path, recipe, 2)
    loader = HandMade((0, 1), (2, 3))
    calls = []

    class Breaks:
        def __call__(self, raw, targets):
            terms = criterion(raw, targets)
            calls.append(terms)
            return terms if len(calls) == 1 else dataclasses.replace(terms, box=terms.box * bad)

    criterion = broken.criterion
    broken = dataclasses.replace(broken, criterion=Breaks())
    with pytest.raises(InputError) as caught:
        train_epoch(broken, loader)
    told = str(caught.value)
    assert told.startswith(f"the loss is not finite at update 1: box {bad}, objectness 0.")
    assert "Try a lower optimizer.lr (now 0.01), optimizer.clip_norm, or precision: fp32 (now fp32)" in told
    for name, value in good.model.named_parameters():
        assert torch.equal(value, broken.model.get_parameter(name)), name


def test_nothing_is_left_behind(tmp_path):
    """An epoch begins without gradients of the one before."""
    recipe = make_recipe()
    state = make_state(tmp_path, recipe, 1)
    before = copy.deepcopy(state.model.state_dict())
    train_epoch(state, HandMade((0, 1, 2, 3)))
    assert all(parameter.grad is None for parameter in state.model.parameters())
    assert any(not torch.equal(before[name], value) for name, value in state.model.state_dict().items())


def test_the_best_value_is_kept(tmp_path):
    """Equal values do not replace it; -1, where nothing can be measured, is better than nothing."""
    state = make_state(tmp_path, make_recipe(), 1)
    assert state.update_best("AP", -1.0)
    assert state.update_best("AP", 0.5)
    state.end_epoch()
    assert not state.update_best("AP", 0.3)
    assert not state.update_best("AP", 0.5)
    assert state.best == {"AP": {"value": 0.5, "epoch": 0}}
