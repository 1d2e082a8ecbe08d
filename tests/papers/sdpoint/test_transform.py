"""Points: where they are, and what an instance computes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.build import build_graph, build_model
from detect.models.graph import Flow, Graph
from detect.models.registry import PoolPoint, pooled_hw, resize_cells
from detect.papers.sdpoint.transform import (
    PLAIN,
    Instance,
    find_points,
    instance_of,
    list_instances,
    set_way,
    tapped_rows,
    use_instance,
)

RATIOS = (0.5, 0.75)


def on_meta(name: str) -> Graph:
    with torch.device("meta"):
        return build_graph(name, 2).eval()


def image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "half", "three_quarters"),
    # Half to even: 14 * 0.75 = 10.5 is 10, 7 * 0.5 = 3.5 is 4 (SPDPoint's published code, NumPy's rounding).
    [(56, 28, 42), (32, 16, 24), (28, 14, 21), (16, 8, 12), (14, 7, 10), (8, 4, 6), (7, 4, 5), (4, 2, 3), (1, 1, 1)],
)
def test_pooled_sizes(size: int, half: int, three_quarters: int) -> None:
    assert pooled_hw((size, size), 0.5) == (half, half)
    assert pooled_hw((size, 2), 0.75) == (three_quarters, 2)  # 1.5 is 2


def test_cells_are_averaged_or_repeated() -> None:
    row = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
    assert resize_cells(row, (1, 4)) is row
    # Cell i of 3 covers columns floor(4i / 3) to ceil(4(i + 1) / 3) - 1: 0-1, 1-2, 2-3.
    assert resize_cells(row, (1, 3)).tolist() == [[[[1.5, 2.5, 3.5]]]]
    assert resize_cells(row, (2, 8)).tolist() == [[[[1, 1, 2, 2, 3, 3, 4, 4]] * 2]]


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("yolov5n", 4),  # one behind each C3 of the backbone; the neck has none
        ("cspdarknet53+efm+width=0.25", 5),
        ("resnet18", 9),  # the stem's max-pool and eight blocks
        ("resnet18-small", 8),
        pytest.param("preresnet101", 34, marks=pytest.mark.slow),
        ("wrn-40-4", 18),
        pytest.param("densenet-bc-100-12", 48, marks=pytest.mark.slow),
        ("vgg19-bn", 16),  # its pools come behind convolutions, so they are none
        ("peleenet", 21),  # the pool of its stem has a branch beside it
        ("darknet-tiny+prn", 7),  # no blocks: one behind each convolution
    ],
)
def test_number_of_points(name: str, points: int) -> None:
    assert len(find_points(on_meta(name))) == points


def test_the_pool_of_the_stem_comes_first() -> None:
    graph = on_meta("resnet18")
    assert [isinstance(point, PoolPoint) for point in find_points(graph)] == [True] + [False] * 8


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["yolov5n-spd+width=0.25", "resnet20", "densenet-bc-100-12+depth=0.1", "resnet18+fpn+width=0.25"]
)
def test_points_leave_the_plain_network_alone(name: str) -> None:
    """No key of the state names a point; after another instance the plain network is what it was, bit for bit."""
    torch.manual_seed(0)
    graph = build_graph(name, 2)
    assert not [key for key in graph.state_dict() if "point" in key or "behind" in key]
    for training in (True, False):
        graph.train(training)
        before = graph(image(64, 64))
        use_instance(graph, Instance(1, 0.5))
        other = graph(image(64, 64))
        use_instance(graph, PLAIN)
        after = graph(image(64, 64))
        for a, b, c in zip(*map(as_list, (before, after, other)), strict=True):
            assert torch.equal(a, b)
            assert a.shape == c.shape
            assert not torch.equal(a, c)


def test_a_copy_has_points_of_its_own() -> None:
    torch.manual_seed(0)
    graph = build_graph("yolov5n+width=0.25", 2).eval()
    plain = graph(image(64, 64))
    copied = copy.deepcopy(graph)
    use_instance(copied, Instance(2, 0.5))
    assert not torch.equal(copied(image(64, 64))[0], plain[0])
    assert torch.equal(graph(image(64, 64))[0], plain[0])


def as_list(output: Tensor | list[Tensor]) -> list[Tensor]:
    return output if isinstance(output, list) else [output]


def pool_input(ratio: float) -> object:
    def hook(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (F.adaptive_avg_pool2d(inputs[0], [round(side * ratio) for side in inputs[0].shape[2:]]),)

    return hook


@torch.no_grad()
def run_backbone(graph: Graph, x: Tensor) -> Tensor:
    """The last map of the backbone."""
    values = {"image": x}
    for row in graph.definition.rows:
        if row.section == "backbone":
            values[row.name] = graph.run_row(row, values, Flow())
    return list(values.values())[-1]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize(
    ("name", "point", "path"),
    [
        # The module that reads the pooled map in the plain network: behind the addition comes the activation;
        ("resnet20", 2, "layers.stage1.stage.1.activation"),
        ("resnet20", 4, "layers.stage2.stage.0.activation"),
        # behind a block in pre-activation, the next block's norm and shortcut: the whole block;
        ("wrn-16-8+width=0.25", 1, "layers.stage1.stage.1"),
        # behind a plain convolution the next one;
        ("vgg19-bn+width=0.125", 1, "layers.stage1.convs.1"),
        # behind a C3 the next row.
        ("yolov5n", 2, "layers.down4"),
    ],
)
def test_an_instance_is_the_plain_network_with_a_pool(name: str, point: int, path: str, ratio: float) -> None:
    torch.manual_seed(0)
    graph = build_graph(name, 2).eval()
    use_instance(graph, Instance(point, ratio))
    found = run_backbone(graph, image(32, 64))
    use_instance(graph, PLAIN)
    graph.get_submodule(path).register_forward_pre_hook(pool_input(ratio))
    assert torch.equal(found, run_backbone(graph, image(32, 64)))


def test_a_dense_layer_is_followed_by_a_pool_of_all_maps_so_far() -> None:
    torch.manual_seed(0)
    graph = build_graph("densenet40+depth=0.25", 2).eval()
    body = graph.layer("stage1").stage[0]
    x = torch.rand(1, graph.shapes["stem"].channels, 8, 8)
    use_instance(graph, Instance(2, 0.75))
    with torch.no_grad():
        found = body(x)
        first = torch.cat([x, body.layers[0](x)], dim=1)
        second = F.adaptive_avg_pool2d(torch.cat([first, body.layers[1](first)], dim=1), (6, 6))
        expected = second
        for layer in list(body.layers)[2:]:
            expected = torch.cat([expected, layer(expected)], dim=1)
    torch.testing.assert_close(found, expected)


def test_the_pool_of_the_stem_pools_further() -> None:
    """56 x 56 behind the plain pool: at 0.75 an adaptive max-pool to 42 x 42."""
    graph = on_meta("resnet18")
    use_instance(graph, Instance(1, 0.75))
    assert graph.layer("stem_pool")(torch.empty(1, 64, 112, 112, device="meta")).shape[2:] == (42, 42)
    use_instance(graph, PLAIN)
    assert graph.layer("stem_pool")(torch.empty(1, 64, 112, 112, device="meta")).shape[2:] == (56, 56)
    real = build_graph("resnet18+width=0.125", 2)
    use_instance(real, Instance(1, 0.5))
    x = torch.rand(1, 8, 16, 16)
    assert torch.equal(real.layer("stem_pool")(x), F.max_pool2d(x, 4))


def test_half_the_cells_of_an_even_map_have_its_mean() -> None:
    """So the last point of a classifier changes nothing at 0.5; at 0.75 windows overlap and it does."""
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(resize_cells(x, (4, 4)).mean(dim=(2, 3)), x.mean(dim=(2, 3)))
    assert (resize_cells(x, (6, 6)).mean(dim=(2, 3)) - x.mean(dim=(2, 3))).abs().max() > 1e-4


def test_levels_are_restored_or_shrink() -> None:
    """yolov5n at 64 x 96: P3 8 x 12, P4 4 x 6, P5 2 x 3. Behind its second C3, at 8 px cells, 0.5 halves all."""
    graph = build_graph("yolov5n+width=0.1", 2).eval()
    nominal = [(8, 12), (4, 6), (2, 3)]

    def sizes(instance: Instance) -> list[tuple[int, int]]:
        use_instance(graph, instance)
        return [tuple(level.shape[2:4]) for level in graph(torch.zeros(1, 3, 64, 96))]

    set_way(graph, "restore")
    assert all(
        sizes(instance) == nominal for instance in (PLAIN, Instance(1, 0.5), Instance(2, 0.75), Instance(4, 0.5))
    )
    set_way(graph, "shrink")
    assert sizes(PLAIN) == nominal
    assert sizes(Instance(1, 0.5)) == [(4, 6), (2, 3), (1, 2)]  # 3 halved by a stride is 2
    assert sizes(Instance(2, 0.5)) == [(8, 12), (2, 3), (1, 2)]  # behind P3's C3, which the neck reads in front
    assert sizes(Instance(3, 0.5)) == [(8, 12), (4, 6), (1, 2)]
    assert sizes(Instance(4, 0.75)) == nominal


@pytest.mark.parametrize(
    ("name", "point", "tapped"),
    [
        ("yolov5n+width=0.25", 2, "c3"),
        # Points inside a stage: the one behind its last block lies behind the row.
        ("resnet18+fpn+width=0.125", 5, "c3"),
        ("peleenet+fpn+depth=0.1+width=0.5", 3, "c3"),
    ],
)
def test_neck_and_head_read_in_front_of_the_point(name: str, point: int, tapped: str) -> None:
    """What the first row behind the backbone sees of a row is the plain map, bit for bit; the next stage sees less."""
    torch.manual_seed(0)
    graph = build_graph(name, 2).eval()
    assert tapped in tapped_rows(graph)
    reader = next(row for row in graph.definition.rows if row.section != "backbone" and tapped in row.inputs)
    seen: list[Tensor] = []
    place = reader.inputs.index(tapped)
    graph.layer(reader.name).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[place]))
    with torch.no_grad():
        plain = graph(image(64, 96))
        use_instance(graph, Instance(point, 0.5))
        cheap = graph(image(64, 96))
    assert torch.equal(*seen)
    assert any(not torch.equal(a, b) for a, b in zip(plain, cheap, strict=True))


def test_maps_grow_bilinearly() -> None:
    """Behind point 1 of yolov5n at 64 x 64 px the neck's P5 is 1 x 1, enlarged to 2 x 2; P4 2 x 2 to 4 x 4."""
    torch.manual_seed(0)
    graph = build_graph("yolov5n+width=0.25", 2).eval()
    use_instance(graph, Instance(1, 0.5))
    seen: dict[str, Tensor] = {}
    graph.layer("c4").register_forward_hook(lambda *found: seen.update(c4=found[2]))
    reader = next(row for row in graph.definition.rows if row.section != "backbone" and "c4" in row.inputs)
    place = reader.inputs.index("c4")
    graph.layer(reader.name).register_forward_pre_hook(lambda _, inputs: seen.update(read=inputs[place]))
    with torch.no_grad():
        graph(image(64, 64))
    a, b, c, d = (seen["c4"][..., i, j] for i in (0, 1) for j in (0, 1))
    # Centres of the four cells lie at 1/4 and 3/4 of an old one: the edge keeps its value, inside 3 parts of 4 count.
    assert torch.equal(seen["read"][..., 0, 0], a)
    torch.testing.assert_close(seen["read"][..., 0, 1], (3 * a + b) / 4)
    torch.testing.assert_close(seen["read"][..., 2, 1], (3 * (3 * c + d) / 4 + (3 * a + b) / 4) / 4)


NAMES = [
    "yolov5n+width=0.25",
    "csppeleenet-efm-sam+width=0.25",
    "cspresnet10+panet+spd+width=0.25",
    "darknet53+prn+width=0.25+depth=0.2",
    "preresnet18+gfm+spd+width=0.25",
    "resnet18-spd+width=0.25",
    "densenet40+depth=0.2",
]
MORE = [
    "yolov5n-spd",
    "cspdensenet201-elastic+fpn+width=0.25+depth=0.05",
    "resnet50-spd-official+width=0.25",
    "resnext29-8x64d+width=0.25",
    "yolov3-tiny",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_instances_with_odd_sides_run(name: str) -> None:
    """Sides become odd (96 x 160 at 0.75), strided and with space-to-depth, merges included."""
    graph = on_meta(name)
    count = len(find_points(graph))
    ways = {1: "restore", count // 2: "shrink", count: "shrink"}
    for point, way in ways.items():
        set_way(graph, way)
        use_instance(graph, Instance(max(point, 1), 0.75))
        graph(torch.empty(1, 3, 96, 160, device="meta"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, *MORE])
def test_every_instance_runs(name: str) -> None:
    graph = on_meta(name)
    for way in ("restore", "shrink"):
        set_way(graph, way)
        for instance in list_instances(range(1, len(find_points(graph)) + 1), RATIOS):
            use_instance(graph, instance)
            graph(torch.empty(1, 3, 96, 160, device="meta"))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["restore", "shrink"])
def test_every_parameter_learns_in_every_instance(way: str) -> None:
    torch.manual_seed(0)
    model = build_model("yolov5n-spd+width=0.25", 2).train()
    set_way(model.graph, way)
    for instance in list_instances((1, 4), (0.75,)):
        use_instance(model, instance)
        model.zero_grad()
        sum(level.square().mean() for level in model(image(64, 96))).backward()
        without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not without


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yolov5n", r"point: yolov5n has no point 5; allowed: 1 to 4, or 0 for the plain network"),
    ],
)
def test_points_that_are_not_there(name: str, message: str) -> None:
    graph = on_meta(name)
    with pytest.raises(InputError, match=message):
        use_instance(graph, Instance(5, 0.5))
    assert instance_of(graph) == PLAIN


def test_names() -> None:
    assert [Instance(3, 0.5).name, Instance(12, 0.75).name, PLAIN.name] == ["3@0.5", "12@0.75", "plain"]
