"""Which instances are drawn, and the statistics that each gets in the end."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from detect.config.data import DataConfig
from detect.errors import InputError
from detect.models.build import build_classifier, build_model
from detect.models.checkpoint import load_checkpoint
from detect.models.model import Model
from detect.models.norms import Statistics, named_norms
from detect.papers.sdpoint.instances import instances_in
from detect.papers.sdpoint.strategy import SDPoint
from detect.papers.sdpoint.transform import (
    PLAIN,
    Instance,
    InstanceTransform,
    instance_of,
    list_instances,
    use_instance,
)
from detect.structures import Batch, ClassTargets
from detect.training.loop import train
from detect.training.norm_statistics import norm_statistics
from detect.training.strategy import open_strategies
from tests.training.small import TINY, EndsWhenAsked, make_recipe, make_settings, make_shapes, write_model

CPU = torch.device("cpu")


def strategy_of(model: Model, loader: Any = (), **changes: Any) -> SDPoint:
    recipe = make_recipe(sdpoint={"ratios": [0.5, 0.75], **changes})
    return SDPoint(recipe, model, loader, CPU, "fp32")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged."""
    caplog.set_level(logging.INFO, "detect")
    logging.getLogger("detect").propagate = True
    return caplog


@pytest.fixture
def classifier() -> Model:
    torch.manual_seed(0)
    return build_classifier("resnet20+width=0.25", 2)


def batches(count: int) -> Iterator[Batch]:
    for number in range(count):
        rng = torch.Generator().manual_seed(number)
        images = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8, generator=rng)
        yield Batch(images, ClassTargets(torch.zeros(4, 2)), torch.arange(4))


def forward(model: Model, batch: Batch) -> None:
    model(batch.images.permute(0, 3, 1, 2).float() / 255)


def test_all_instances_are_equally_likely(classifier: Model) -> None:
    """Nine points and the plain network, each with probability 1/10; of two ratios each half of the rest."""
    strategy = strategy_of(classifier)
    drawn = Counter(strategy.draw(epoch, number) for epoch in range(4) for number in range(1, 501))
    assert set(drawn) == set(list_instances(range(1, 10), (0.5, 0.75)))
    # 2,000 draws: 200 +- 3 * 13.4 of the plain network, 100 +- 4 * 9.7 of each of the 18 others.
    assert abs(drawn.pop(PLAIN) - 200) < 41
    assert all(abs(count - 100) < 39 for count in drawn.values())


def test_the_plain_networks_share(classifier: Model) -> None:
    """0.4 of the batches for the plain network, the rest alike for the nine points."""
    strategy = strategy_of(classifier, plain_share=0.4)
    points = Counter(strategy.draw(epoch, number).point for epoch in range(4) for number in range(1, 501))
    # 2,000 draws: 800 +- 3 * 21.9 of the plain network, 133.3 +- 4 * 11.2 of each point.
    assert abs(points.pop(0) - 800) < 66
    assert len(points) == 9
    assert all(abs(count - 133.3) < 45 for count in points.values())


def test_draws_depend_on_seed_and_batch_only(classifier: Model) -> None:
    first, second = strategy_of(classifier), strategy_of(classifier)
    places = [(epoch, number) for epoch in range(3) for number in range(1, 30)]
    backwards = {place: second.draw(*place) for place in reversed(places)}
    assert [first.draw(*place) for place in places] == [backwards[place] for place in places]
    second.recipe = dataclasses.replace(second.recipe, seed=1)
    assert [first.draw(*place) for place in places] != [second.draw(*place) for place in places]


def test_chosen_points(classifier: Model) -> None:
    strategy = strategy_of(classifier, points=[7, 2, 7])
    assert {strategy.draw(0, number).point for number in range(1, 100)} == {0, 2, 7}


def test_instances_that_save_too_little_are_left_out(said: Any) -> None:
    """Behind the last C3 nothing gets cheaper: neck and head read the map in front of the point."""
    model = build_model("yolov5n-spd+width=0.25", 2)
    strategy = strategy_of(model, points=[3, 4])
    assert strategy.instances == [PLAIN, Instance(3, 0.5), Instance(3, 0.75)]
    assert "left out, because they save under 2 % of the cost: 4@0.5, 4@0.75" in said.messages[-1]
    drawn = Counter(strategy.draw(0, number).point for number in range(1, 401))
    assert set(drawn) == {0, 3}
    assert abs(drawn[0] - 200) < 40  # 4 deviations of 10
    with pytest.raises(InputError, match="sdpoint: no instance saves 2 % of the cost; choose earlier points"):
        strategy_of(model, points=[4])


def test_a_batch_goes_through_its_instance(classifier: Model) -> None:
    strategy = strategy_of(classifier)
    images, targets = torch.rand(2, 3, 16, 16), ClassTargets(torch.zeros(2, 2))
    for number in range(1, 6):
        assert strategy.on_batch(images, targets, 0, number) == [(images, targets)]
        strategy.on_part(0)
        assert instance_of(classifier) == strategy.draw(0, number)
    strategy.on_batch_end(True)
    assert instance_of(classifier) == PLAIN


def test_points_that_a_model_has_not(classifier: Model) -> None:
    with pytest.raises(InputError, match=r"sdpoint\.points: .* has the points 1 to 9, found 10"):
        strategy_of(classifier, points=[10])


def test_a_model_without_points(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(
        "name: bare\nbackbone:\n  - {name: stem, module: Stem, args: {out_channels: 8}}\n"
        "head:\n  - {name: detect, module: AnchorDetect, args: {anchors_px: [[[4, 4]]]}}\n",
        encoding="utf-8",
    )
    with pytest.raises(InputError, match="sdpoint: bare has no points"):
        strategy_of(build_model(str(path), 2))


# ------------------------------------------------------------------------------------------- statistics


def all_norms(model: Model) -> list[str]:
    return [path for path, _ in named_norms(model.graph)]


def measure(model: Model, instances: list[Instance], count: int, skipped: int = 0) -> dict[Instance, Statistics]:
    """Statistics of all norms but the first ``skipped``, on ``count`` batches."""
    transforms = [InstanceTransform(instance) for instance in instances]
    found = norm_statistics(model, all_norms(model)[skipped:], transforms, batches(count), forward)
    return {instance: found[transform] for instance, transform in zip(instances, transforms, strict=True)}


def test_statistics_are_cumulative_means(classifier: Model) -> None:
    """As PyTorch's own, with momentum None and from zero, in a copy whose weights do not learn."""
    found = measure(classifier, [PLAIN], 3)[PLAIN]
    reference = copy.deepcopy(classifier).train()
    for _, norm in named_norms(reference.graph):
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        for batch in batches(3):
            forward(reference, batch)
    for path, norm in named_norms(reference.graph):
        torch.testing.assert_close(found[path], (norm.running_mean, norm.running_var))


def test_in_front_of_the_point_they_are_those_of_the_plain_network(classifier: Model) -> None:
    """Point 4 is behind the first block of stage 2: what stands there or before is the same, bit for bit."""
    instance = Instance(4, 0.5)
    found = measure(classifier, [PLAIN, instance], 2)
    differing = [
        path
        for path in all_norms(classifier)
        if not all(torch.equal(a, b) for a, b in zip(found[PLAIN][path], found[instance][path], strict=True))
    ]
    behind = [p for p in all_norms(classifier) if p.startswith(("layers.stage2.stage.1", "layers.stage2.stage.2"))]
    assert differing == behind + [p for p in all_norms(classifier) if p.startswith("layers.c5")]


def test_the_model_is_left_as_it_was(classifier: Model) -> None:
    state = copy.deepcopy(classifier.state_dict())
    momenta = {norm.momentum for _, norm in named_norms(classifier.graph)}
    frozen = all_norms(classifier)[0]
    found = measure(classifier, [Instance(2, 0.5)], 1, skipped=1)
    assert frozen not in found[Instance(2, 0.5)]
    assert all(torch.equal(value, state[key]) for key, value in classifier.state_dict().items())
    assert {norm.momentum for _, norm in named_norms(classifier.graph)} == momenta
    assert instance_of(classifier) == PLAIN


class Loader:
    """Two batches, whatever the epoch."""

    def __len__(self) -> int:
        return 2

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        return batches(2)


def test_the_evaluated_model_is_a_copy(classifier: Model) -> None:
    state = copy.deepcopy(classifier.state_dict())
    judged = strategy_of(classifier, Loader(), norm_batches=1).eval_model(classifier, 0)
    assert all(torch.equal(value, state[key]) for key, value in classifier.state_dict().items())
    changed = {key for key, value in judged.state_dict().items() if not torch.equal(value, state[key])}
    assert changed == {
        f"graph.{path}.{name}" for path in all_norms(classifier) for name in ("running_mean", "running_var")
    }


@pytest.mark.slow
@pytest.mark.parametrize("way", [pytest.param("restore", marks=pytest.mark.slow), "shrink"])
def test_a_run(tmp_path: Path, way: str) -> None:
    """The best checkpoint has all statistics, the last one the training's."""
    data: DataConfig = make_shapes(tmp_path / "data")
    settings = make_settings(tmp_path, data, epochs=1, sdpoint={"ratios": [0.5], "way": way, "norm_batches": 1})
    train(settings)
    last, best = (instances_in(load_checkpoint(settings.out / name)) for name in ("last.pt", "best.pt"))
    assert last is not None
    assert best is not None
    members = (PLAIN, Instance(1, 0.5))  # the neck reads c3 in front of the second point, which so saves nothing
    assert best.members == last.members == members
    assert best.way == last.way == way
    assert last.statistics == {}
    # Behind the first C3 there are 15 norms: 3 Downsample, and 3 C3 of 4 norms each with their one bottleneck.
    assert {instance: len(norms) for instance, norms in best.statistics.items()} == {members[1]: 15}
    before = (settings.out / "best.pt").read_bytes()
    train(dataclasses.replace(settings, resume=True))
    assert (settings.out / "best.pt").read_bytes() == before
    costs = [row.split(",") for row in (settings.out / "results.csv").read_text(encoding="utf-8").splitlines()]
    spent, full = costs[0].index("compute/gmacs"), costs[0].index("compute/full_gmacs")
    assert all(float(row[spent]) <= float(row[full]) for row in costs[1:])


def test_a_stop_without_an_average(tmp_path: Path) -> None:
    """The trained model itself is saved, as the plain network, although the last batch went through an instance."""
    sdpoint = {"ratios": [0.5], "norm_batches": 1}
    settings = make_settings(
        tmp_path, make_shapes(tmp_path / "data"), epochs=1, seed=1, sdpoint=sdpoint, ema={"decay": 0.0}
    )
    with pytest.raises(KeyboardInterrupt):
        train(settings, EndsWhenAsked(1))
    assert instance_of(load_checkpoint(settings.out / "last.pt").model) == PLAIN


def test_off_there_is_no_strategy(tmp_path: Path) -> None:
    """Points alone change nothing: a network with points is the plain one (``test_transform.py``)."""
    model = build_model(write_model(tmp_path), 2)
    off, on = (make_recipe(sdpoint={"ratios": ratios, "points": [1]}) for ratios in ([], [0.5]))
    assert open_strategies(off, model, Loader(), CPU, "fp32") == ()
    assert [type(strategy) for strategy in open_strategies(on, model, Loader(), CPU, "fp32")] == [SDPoint]


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        "tiny",
        pytest.param("yolov5n-spd+bdsc+width=0.125", marks=pytest.mark.slow),
        pytest.param("csppeleenet-efm+spd+bdsc+width=0.125+depth=0.1", marks=pytest.mark.slow),
    ],
)
def test_all_papers_together(tmp_path: Path, model: str) -> None:
    """Space-to-depth, cross-stage-partial stages, binary convolutions, instances and reduced epochs in one run.

    Its best checkpoint holds bits, and statistics for the norms inside of binary convolutions too.
    """
    data = make_shapes(tmp_path / "data")
    trd = {"resolution": 32, "probability": 1.0, "guard": 0}
    changes: dict[str, Any] = {"sdpoint": {"ratios": [0.75], "norm_batches": 1}, "trd": trd}
    settings = make_settings(tmp_path, data, epochs=1, **changes)
    path = write_model(tmp_path, TINY + "conv: bdsc\n")
    settings = dataclasses.replace(settings, model=path if model == "tiny" else model)
    train(settings)
    content = torch.load(settings.out / "best.pt", weights_only=True)
    assert any(key.endswith(".spatial.bits") for key in content["state_dict"])
    found = load_checkpoint(settings.out / "best.pt")
    assert instances_in(found) is not None
    assert any(path.endswith(".conv.norm") for path in instances_in(found).statistics[Instance(1, 0.75)])
    for member in instances_in(found).members:
        use_instance(found.model, member)
        assert all(level.isfinite().all() for level in found.model(torch.rand(1, 3, 64, 64)))
