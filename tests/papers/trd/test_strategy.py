"""Reduced epochs: what becomes of batches, and of runs."""

from __future__ import annotations

import copy
import dataclasses
import logging

import pytest
import torch

from detect.config.base import build
from detect.config.recipe import ClassificationRecipe, SdpointConfig
from detect.errors import InputError
from detect.models.build import build_classifier, build_graph, build_model
from detect.models.checkpoint import load_checkpoint
from detect.models.model import ClassificationModel
from detect.models.norms import named_norms
from detect.papers.trd.schedule import reduced_epochs
from detect.papers.trd.strategy import Trd
from detect.structures import Batch, ClassTargets, Targets
from detect.training.checks import warn_of_ignored
from detect.training.loop import train
from detect.training.norm_statistics import NormEstimator, learning_norms
from detect.training.strategy import open_strategies, split_batch
from tests.training import test_classification as classes
from tests.training.small import make_recipe, train_in_pieces, write_model
from tests.training.test_epoch import SGD, HandMade, make_state, train_epoch
from tests.training.test_loop import assert_same_run, results

NORMS = NormEstimator(HandMade(), (), 1, torch.device("cpu"), "fp32")
"""Measures nothing: no norm learns."""


@pytest.fixture(scope="module")
def classifier():
    return build_classifier("resnet18+width=0.1", 3)


@pytest.fixture
def detector(tmp_path):
    return build_model(write_model(tmp_path), 2)


@pytest.fixture
def said(caplog):
    """What is logged."""
    caplog.set_level(logging.INFO, "detect")
    logging.getLogger("detect").propagate = True
    return caplog


def class_recipe(epochs=40, image_size=32, **trd):
    plain = {"epochs": epochs, "image_size": image_size, "trd": {"resolution": 16, **trd}}
    return build(ClassificationRecipe, plain, "here")


def det_recipe(**trd):
    """Images of 64 px, all epochs reduced; no mosaics whose end would be guarded."""
    return make_recipe(augment={"mosaic": 0.0}, trd={"resolution": 32, "probability": 1.0, **trd})


def trd_of(recipe, model):
    return Trd(recipe, model, NORMS)


def class_batch(count=4, size=32):
    images = torch.rand(count, 3, size, size, generator=torch.manual_seed(0))
    return images, ClassTargets(torch.eye(count))


def sizes(parts):
    return [(len(images), *images.shape[2:]) for images, _ in parts]


# --------------------------------------------------------------------------------------------- batches


def test_half_the_size_takes_every_second_pixel(classifier):
    images, targets = class_batch()
    ((found, same),) = trd_of(class_recipe(probability=1), classifier).on_batch(images, targets, 0, 1)
    assert torch.equal(found, images[:, :, ::2, ::2])
    assert same is targets


def test_areas_are_means(classifier):
    images, targets = class_batch()
    recipe = class_recipe(probability=1, interpolation="area")
    ((found, _),) = trd_of(recipe, classifier).on_batch(images, targets, 0, 1)
    means = (images[..., ::2, ::2] + images[..., 1::2, ::2] + images[..., ::2, 1::2] + images[..., 1::2, 1::2]) / 4
    torch.testing.assert_close(found, means)


def test_boxes_follow_and_rectangles_keep_their_shape(detector):
    """Half of 64 x 128 px is 32 x 64 px."""
    boxes = torch.tensor([[8.0, 4.0, 40.0, 20.0]])
    targets = Targets(torch.tensor([1]), torch.tensor([0]), boxes)
    trd = trd_of(det_recipe(), detector)
    ((found, moved),) = trd.on_batch(torch.rand(2, 3, 64, 128), targets, 0, 1)
    assert found.shape == (2, 3, 32, 64)
    assert moved.boxes_xyxy_px.tolist() == [[4.0, 2.0, 20.0, 10.0]]
    # Of 96 px it would be 48; what a detector takes is 64, the nearest even multiple of 32.
    ((found, moved),) = trd.on_batch(torch.rand(2, 3, 96, 64), targets, 0, 1)
    assert found.shape == (2, 3, 64, 32)
    assert moved.boxes_xyxy_px[0].tolist() == pytest.approx([4.0, 4 * 64 / 96, 20.0, 20 * 64 / 96])


def test_all_batches_of_an_epoch_have_its_size(classifier):
    recipe = class_recipe()
    trd, batch = trd_of(recipe, classifier), class_batch()
    for epoch, is_reduced in enumerate(reduced_epochs(recipe)):
        expected = [(4, 16, 16)] if is_reduced else [(4, 32, 32)]
        assert all(sizes(trd.on_batch(*batch, epoch, number)) == expected for number in (1, 2, 3))


def test_mixed_sizes(classifier):
    """Each batch of a drawn epoch has its own, all from 28 to 32 px equally often; a function of epoch and number."""
    recipe = class_recipe(probability=1, resolution=28, variant="mixed")
    batch = class_batch(count=2)

    def drawn():
        trd = trd_of(recipe, classifier)
        return [trd.on_batch(*batch, epoch, number)[0][0].shape[2] for epoch in range(10) for number in range(1, 11)]

    found = drawn()
    assert set(found) == {28, 29, 30, 31, 32}
    # Of 100 draws of 5 sizes 20 each, with a standard deviation of sqrt(100 * 0.2 * 0.8) = 4.
    assert all(8 <= found.count(size) <= 32 for size in set(found))
    assert drawn() == found


def test_three_sizes(classifier):
    """An epoch has one of them; 24 px is midway from 16 to 32."""
    trd, batch = trd_of(class_recipe(variant="three"), classifier), class_batch()
    found = [[sizes(trd.on_batch(*batch, epoch, number))[0][1] for number in (1, 2)] for epoch in range(40)]
    assert all(first == second for first, second in found)
    counts = [sum(first == size for first, _ in found) for size in (16, 24, 32)]
    assert sum(counts) == 40
    assert min(counts) >= 4


def test_batches_in_two_parts(classifier):
    """A quarter of eight images are two, and others in the next batch; every image keeps its target."""
    images, targets = class_batch(count=8)
    trd = trd_of(class_recipe(variant="batch", probability=0.25), classifier)
    chosen = set()
    for number in range(1, 9):
        (small, few), (large, many) = trd.on_batch(images, targets, 0, number)
        assert sizes([(small, few), (large, many)]) == [(2, 16, 16), (6, 32, 32)]
        shown = [few.shares.argmax(dim=1), many.shares.argmax(dim=1)]
        assert sorted(torch.cat(shown).tolist()) == list(range(8))
        assert torch.equal(small, images[shown[0], :, ::2, ::2])
        assert torch.equal(large, images[shown[1]])
        chosen.add(tuple(shown[0].tolist()))
    assert len(chosen) > 3
    # 2 of 8 images have a quarter of their pixels: (6 + 2 / 4) / 8.
    assert trd.on_epoch_end() == {"trd/reduced": 1.0, "trd/area": 0.8125}


@pytest.mark.parametrize(("probability", "expected"), [(0.0, [(4, 32, 32)]), (1.0, [(4, 16, 16)])])
def test_batches_that_stay_in_one_part(classifier, probability, expected):
    trd = trd_of(class_recipe(variant="batch", probability=probability), classifier)
    assert sizes(trd.on_batch(*class_batch(), 0, 1)) == expected


def test_images_with_small_objects_stay(detector):
    """Reduced to half, squares of 8 and 16 px are 4 and 8 px; what counts is the median of each image.

    Image 0: 4, 4 and 8 px, median 4: stays. Image 1: 8 px: goes. Image 2: nothing: goes. Image 3: 4 and 8 px, median 6.
    """
    sides = [8.0, 8.0, 16.0, 16.0, 8.0, 16.0]
    index = torch.tensor([0, 0, 0, 1, 3, 3])
    boxes = torch.tensor([[0.0, 0.0, side, side] for side in sides])
    targets = Targets(index, torch.arange(6), boxes)
    images = torch.rand(4, 3, 64, 64)
    trd = trd_of(det_recipe(min_object_px=6), detector)
    (small, few), (large, many) = trd.on_batch(images, targets, 0, 1)
    assert torch.equal(small, images[[1, 2, 3], :, ::2, ::2])
    assert torch.equal(large, images[[0]])
    assert (few.image_index.tolist(), few.labels.tolist()) == ([0, 2, 2], [3, 4, 5])
    assert few.boxes_xyxy_px[:, 2].tolist() == [8.0, 4.0, 8.0]
    assert (many.image_index.tolist(), many.labels.tolist()) == ([0, 0, 0], [0, 1, 2])
    assert many.boxes_xyxy_px[:, 2].tolist() == [8.0, 8.0, 16.0]
    # One of four images keeps its pixels, the others a quarter of them.
    assert trd.on_epoch_end() == {"trd/reduced": 1.0, "trd/area": 0.4375, "trd/left_alone": 0.25}
    strict = trd_of(det_recipe(min_object_px=6.1), detector)
    assert sizes(strict.on_batch(images, targets, 0, 1)) == [(2, 32, 32), (2, 64, 64)]
    none = Targets(index[:0], index[:0], boxes[:0])
    assert sizes(strict.on_batch(images, none, 0, 1)) == [(4, 32, 32)]


def test_a_lone_image_is_not_brought_to_one_cell(detector):
    """Its norms would have one value of each channel, which has no variance."""
    trd = trd_of(det_recipe(), detector)
    one, two = ((torch.rand(len(batch.rows), 3, 64, 64), batch.targets) for batch in HandMade((0,), (0, 1)).batches)
    assert sizes(trd.on_batch(*one, 0, 1)) == [(1, 64, 64)]
    assert sizes(trd.on_batch(*two, 0, 1)) == [(2, 32, 32)]


def test_nor_does_sdpoint_bring_one_there(detector):
    """Of three images one has small objects; alone at 64 px it has 2 x 2 cells, and 1 behind a point of ratio 0.5."""
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 32.0, 32.0]])
    targets = Targets(torch.tensor([0, 1]), torch.tensor([0, 0]), boxes)
    for ratios, expected in (([], [(2, 32, 32), (1, 64, 64)]), ([0.5], [(3, 64, 64)])):
        recipe = dataclasses.replace(det_recipe(min_object_px=6), sdpoint=SdpointConfig(ratios=tuple(ratios)))
        assert sizes(trd_of(recipe, detector).on_batch(torch.rand(3, 3, 64, 64), targets, 0, 1)) == expected


# ------------------------------------------------------------------------------------------- the identity

SAME = [
    {"resolution": 64, "probability": 1.0},
    {"resolution": 1, "probability": 1.0, "variant": "mixed"},
    {"resolution": 64, "variant": "batch"},
    {"resolution": 32, "probability": 0.0},
    {"resolution": 32, "probability": 0.0, "variant": "batch"},
]


def test_the_full_size_is_plain_training(tmp_path):
    """With the same seed the same weights, momenta and losses, to the last bit."""
    ended = []
    for section in ({}, *SAME):
        recipe = make_recipe(batch_size=2, nominal_batch_size=2, optimizer=SGD, augment={"mosaic": 0.0}, trd=section)
        plain = make_state(tmp_path, recipe, 2)
        strategies = open_strategies(recipe, plain.model, HandMade(), plain.device, plain.precision)
        assert len(strategies) == bool(section)
        values = train_epoch(dataclasses.replace(plain, strategies=strategies), HandMade((0, 1), (2, 3)))
        momenta = [state["momentum_buffer"] for state in plain.optimizer.state.values()]
        ended.append(([*plain.model.state_dict().values(), *momenta], values))
    (expected, losses), *others = ended
    for found, values in others:
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        assert {tag: values[tag] for tag in losses} == losses
        assert values["trd/area"] == 1.0


def test_it_follows_other_strategies(detector):
    """Of a batch that is 96 px now, half is 48 px, which comes to 64."""

    class Enlarges(Trd):
        def on_batch(self, images, targets, epoch, number):
            return [(torch.rand(len(images), 3, 96, 96), targets)]

    strategies = (Enlarges(det_recipe(), detector, NORMS), trd_of(det_recipe(), detector))
    batch = HandMade((0, 1)).batches[0]
    assert sizes(split_batch(strategies, (torch.rand(2, 3, 64, 64), batch.targets), 0, 1)) == [(2, 64, 64)]


# ----------------------------------------------------------------------------------- the evaluated model


class FullSize:
    """A loader of three batches of 32 px, whatever the epoch."""

    def __len__(self):
        return 3

    def epoch(self, number, start=0):
        for seed in range(3):
            images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.manual_seed(seed))
            yield Batch(images, ClassTargets(torch.eye(4)), torch.arange(4))


def test_the_evaluated_model_has_statistics_of_full_images(classifier):
    """Those of all batches at 32 px, in a copy: as PyTorch's own, cumulative and from zero."""
    norms = NormEstimator(FullSize(), learning_norms(classifier), 50, torch.device("cpu"), "fp32")
    recipe = class_recipe(epochs=4, probability=0.5, exact=True)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    found = Trd(recipe, classifier, norms).eval_model(classifier, epoch=3)
    assert found is not classifier
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    expected = copy.deepcopy(classifier).train()
    for _, norm in named_norms(expected.graph):
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        for batch in FullSize().epoch(0):
            expected(batch.images.permute(0, 3, 1, 2).float() / 255)
    for (path, norm), (_, other) in zip(named_norms(expected.graph), named_norms(found.graph), strict=True):
        torch.testing.assert_close(other.running_mean, norm.running_mean, msg=path)
        torch.testing.assert_close(other.running_var, norm.running_var, msg=path)


def test_without_reduced_batches_it_is_the_model_itself(classifier):
    for trd in ({"probability": 0}, {"resolution": 32, "probability": 1}):
        assert trd_of(class_recipe(**trd), classifier).eval_model(classifier, 39) is classifier
    late = class_recipe(probability=1, guard=0)
    assert trd_of(late, classifier).eval_model(classifier, 0) is not classifier
    with_instances = dataclasses.replace(late, sdpoint=SdpointConfig(ratios=(0.5,)))
    assert trd_of(with_instances, classifier).eval_model(classifier, 0) is classifier  # SDPoint measures them


# -------------------------------------------------------------------------------------------- whole runs


def test_a_run(tmp_path, monkeypatch, said):
    """Two of four epochs learn from images of 8 px; evaluation sees 16 px."""
    data = classes.make_classes(tmp_path / "data")
    seen = []

    class Watched(ClassificationModel):
        def forward(self, images):
            seen.append((self.training, len(images), images.shape[2]))
            return super().forward(images)

    monkeypatch.setattr("detect.models.build.ClassificationModel", Watched)
    trd = {"resolution": 0.5, "exact": True}
    whole = classes.make_settings(tmp_path, data, trd=trd)
    train(whole)
    reduced = reduced_epochs(whole.recipe)
    assert reduced == (True, True, False, False)  # the last two are guarded
    assert [side for training, _, side in seen if training] == [8 if r else 16 for r in reduced for _ in range(3)]
    assert {side for training, _, side in seen if not training} == {16}
    rows = results(whole.out)
    assert [row["trd/reduced"] for row in rows] == [f"{r:d}" for r in reduced]
    assert [row["trd/area"] for row in rows] == ["0.25" if r else "1" for r in reduced]
    told, scores = said.messages[-2:]
    # Nominal and realised: half of the epochs at a quarter of the pixels, 0.5 + 0.5 / 4 = 62.5 %.
    assert told.startswith("trd: mFLOPs in G multiply-adds an image: nominal ")
    assert told.count(" 62.5% (area rule, ") == 2
    assert "(area rule, 2 of 4 epochs)" in told
    accuracies = [float(row["val/top1"]) for row in rows]
    best = max(accuracies)
    epoch = accuracies.index(best) + 1
    assert scores == f"trd: top1 {best:.3f} at best, after epoch {epoch}; {accuracies[-1]:.3f} at last"


@pytest.mark.slow
def test_a_resumed_run_reports_the_whole(tmp_path, said):
    data = classes.make_classes(tmp_path / "data")
    whole = classes.make_settings(tmp_path, data, trd={"resolution": 0.5, "exact": True}, evaluation={"every": 4})
    train(whole)
    told = said.messages[-2:]
    stopped = dataclasses.replace(whole, out=tmp_path / "stopped")
    assert train_in_pieces(stopped, times=3) > 2
    assert_same_run(stopped.out, whole.out)
    assert said.messages[-2:] == told
    last, best = (load_checkpoint(whole.out / name).model.state_dict() for name in ("last.pt", "best.pt"))
    differing = {name.rpartition(".")[2] for name in best if not torch.equal(best[name], last[name])}
    assert differing == {"running_mean", "running_var"}  # the kept ones were measured anew


def test_mean_multiply_adds(classifier):
    """ResNet-50 at 112 px for 224 px, P = 0.5: 4.12 * (0.5 + 0.5 / 4) = 2.575, the paper's Table 1.

    Of these three epochs one was reduced: 4.12 * (2 + 1 / 4) / 3 = 3.09. The counted values are made up.
    """
    trd = trd_of(class_recipe(image_size=224, resolution=112), classifier)
    counted = {"compute/full_gmacs": "4.12"}
    rows = [
        {"trd/reduced": "0", "trd/area": "1", "compute/gmacs": "4.12", **counted},
        {"trd/reduced": "1", "trd/area": "0.25", "compute/gmacs": "1.0918", **counted},
        {"trd/reduced": "0", "trd/area": "1", "compute/gmacs": "4.12", **counted},
    ]
    assert trd.report(rows) == [
        "trd: mFLOPs in G multiply-adds an image: nominal 2.575, 62.5% (area rule, P 0.5); realised 3.09, 75.0% "
        "(area rule, 1 of 3 epochs); as counted 3.111, 75.5%; full size 4.12"
    ]
    assert trd.report([]) == []


def test_mean_multiply_adds_of_the_variants(classifier):
    """By the area rule, of 1 G at 32 px; sizes from 30 px: (30^2 + 31^2 + 32^2) / 3 / 32^2 = 0.93913."""
    rows = [{"trd/reduced": "0", "trd/area": "1", "compute/gmacs": "1", "compute/full_gmacs": "1"}]

    def nominal(**trd):
        (line,) = trd_of(class_recipe(**trd), classifier).report(rows)
        return line.partition("nominal ")[2].partition(",")[0]

    assert nominal(variant="regular", probability=0.1) == "0.625"
    assert nominal(variant="batch", probability=0.2) == "0.85"
    assert nominal(variant="three", probability=1) == "0.4062"  # (1 / 4 + 9 / 16) / 2
    assert nominal(variant="mixed", probability=1, resolution=30) == "0.9391"


@pytest.mark.parametrize(
    ("trd", "message"),
    [
        (
            {"probability": 1},
            "trd: 2 of 8 epochs at 16 px for 32 px (random, P 1): 1-2; guarded: 3-8",
        ),
        (
            {"variant": "paper", "probability": 1},
            "trd: 4 of 8 epochs at 16 px for 32 px (paper, P 1): 1-2, 7-8; guarded: 3-6",
        ),
        (
            {"variant": "progressive", "guard": 0},
            "trd: 4 of 8 epochs at 16 to 28 px for 32 px (progressive, P 0.5): 1-4",
        ),
        ({"probability": 0, "guard": 0}, "trd: 0 of 8 epochs at 16 px for 32 px (random, P 0): none"),
        ({"variant": "regular", "guard": 0}, "trd: 4 of 8 epochs at 16 px for 32 px (regular): 2, 4, 6, 8"),
        (
            {"variant": "mixed", "probability": 1, "guard": 0},
            "trd: 8 of 8 epochs at 16 to 32 px for 32 px (mixed, P 1): 1-8",
        ),
        (
            {"variant": "three", "probability": 1, "guard": 0},
            "trd: 8 of 8 epochs at 16 or 24 px for 32 px (three, P 1): 1-8",
        ),
        ({"variant": "batch"}, "trd: 50% of the images of every batch at 16 px for 32 px"),
    ],
)
def test_the_plan_is_told(classifier, said, trd, message):
    """The rate steps after 4 of 8 epochs."""
    steps = {"schedule": "step", "milestones": [0.5]}
    plain = {"epochs": 8, "image_size": 32, "optimizer": steps, "trd": {"resolution": 16, **trd}}
    trd_of(build(ClassificationRecipe, plain, "here"), classifier)
    assert said.messages == [message]


# ---------------------------------------------------------------------------------- what cannot be, or is idle


def test_a_resolution_that_a_detector_cannot_take(detector):
    recipe = make_recipe(image_size=96, trd={"resolution": 48})
    with pytest.raises(InputError, match=r"^trd\.resolution: 48 is not a multiple of 32; the nearest are 32 and 64$"):
        trd_of(recipe, detector)


@pytest.mark.parametrize(
    ("trd", "message"),
    [
        ({"probability": 0.3}, "trd.probability (trd.resolution is 0, not a size)"),
        ({"min_object_px": 8}, "trd.min_object_px (trd.resolution is 0, not a size)"),
        (
            {"resolution": 32, "variant": "regular", "probability": 0.3, "exact": True},
            "trd.probability (trd.variant is regular, not random), trd.exact (trd.variant is regular, not random)",
        ),
        (
            {"resolution": 32, "variant": "batch", "probability": 0.3, "exact": True, "guard": 3},
            "trd.exact (trd.variant is batch, not random), trd.guard (trd.variant is batch, not random)",
        ),
        (
            {"resolution": 32, "variant": "paper", "guard": 3},
            "trd.guard (trd.variant is paper, not random)",
        ),
        (
            {"resolution": 32, "variant": "progressive", "exact": True},
            "trd.exact (trd.variant is progressive, not random)",
        ),
        ({"resolution": 32, "guard": 3}, None),
        ({"resolution": 32, "probability": 0.3, "min_object_px": 8, "interpolation": "area"}, None),
    ],
)
def test_settings_without_effect(said, trd, message):
    warn_of_ignored(make_recipe(augment={"mosaic": 0.0}, trd=trd))
    assert said.messages == ([] if message is None else [f"no effect: {message}"])


def test_a_guard_around_the_last_mosaic_has_an_effect(said):
    warn_of_ignored(make_recipe(augment={"close_mosaic": 2}, trd={"resolution": 32, "guard": 3}))
    assert said.messages == []


# --------------------------------------------------------------------------------------------- all models

FAMILIES = ["resnet20", "vgg19-bn", "darknet-tiny"]
LARGE = [
    "resnet50-spd",
    "resnet18-small",
    "wrn-28-10",
    "resnext29-8x64d",
    "resnet56-bottleneck",
    "resnet50",
    "densenet-100-12",
    "densenet201-elastic",
    "cspdensenet121+fusion=first",
    "csppeleenet+spd",
    "preresnet50",
    "cspresnet50",
    "cspresnext50",
    "cspdarknet53",
    "yolov5",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_every_classifier_takes_smaller_images(name):
    """Half of 32 px, the paper's 84 px, and odd sizes: nobody's parameters depend on them."""
    with torch.device("meta"):
        graph = build_graph(f"{name}+width=0.25", 5)
        for side in (16, 84, 21):
            assert graph(torch.empty(2, 3, side, side)).shape == (2, 5)
