from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from detect.analysis.profile import build_on_meta
from detect.errors import InputError
from detect.models.blocks.conv import ACTIVATIONS
from detect.models.graph import Graph
from detect.papers.sdpoint.transform import PLAIN, Instance, find_points, instance_of
from detect.papers.tables.operations import Operations, count_operations
from tests.models.thin import thin
from tests.models.yamls import write_model, write_rows

INSTANCES: dict[str, dict[str, int]] = json.loads(
    (Path(__file__).parent / "golden" / "sdpoint-instances.json").read_text(encoding="utf-8")
)
"""What SDPoint's published counter says of each instance; of CIFAR networks, which were not published, with its rules
but without any pool."""

graph_of = functools.cache(build_on_meta)


def rows(folder: Path, *text: str) -> Graph:
    return build_on_meta(str(write_rows(folder, *text)), 2)


def count(folder: Path, *text: str, side: int = 8) -> Operations:
    """Of rows that read an image of ``side`` x ``side``."""
    return count_operations(rows(folder, *text), side)


# -------------------------------------------------------------------------------------- one layer each


def test_nothing(tmp_path: Path) -> None:
    found = count(tmp_path, "name: a, module: SpaceToDepth")
    assert found == Operations()
    assert (found.sdpoint_flops, found.trd_macs) == (0, 0)


def test_convolution_norm_and_activation(tmp_path: Path) -> None:
    """3*9*4 = 108 weights at 8*8 cells, and 4*64 = 256 values, each normed and activated.

    SDPoint: 2 * (6912 + 256) + 256. TRD: 6912 + 2 * 256.
    """
    found = count(tmp_path, "name: a, module: Conv, args: {out_channels: 4, kernel_size: 3}")
    assert found == Operations(macs=6912, normed=256, activated=256)
    assert (found.sdpoint_flops, found.trd_macs) == (14592, 7424)


def test_groups(tmp_path: Path) -> None:
    """Each of the 6 outputs reads one of 3 channels."""
    found = count(tmp_path, "name: a, module: BareConv, args: {out_channels: 6, groups: 3}")
    assert found == Operations(macs=6 * 9 * 64)


def test_bias(tmp_path: Path) -> None:
    """One addition for each of 4*64 outputs, for both papers."""
    row = "name: a, module: ConvStage, args: {out_channels: 4, bias: %s}"
    with_bias, without = (count(tmp_path, row % bias) for bias in ("true", "false"))
    assert with_bias.biases == 256
    assert with_bias.sdpoint_flops - without.sdpoint_flops == with_bias.trd_macs - without.trd_macs == 256


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_counts(tmp_path: Path, name: str) -> None:
    found = count(tmp_path, f"name: a, module: Conv, args: {{out_channels: 4, activation: {name}}}")
    assert found.activated == (0 if name == "none" else 256)


def test_residual_addition(tmp_path: Path) -> None:
    """Two blocks of 3 channels: an addition for each of 3*64 values in both."""
    found = count(tmp_path, "name: a, module: PreResidualStage, args: {out_channels: 3}, repeats: 2")
    assert found == Operations(macs=4 * 3 * 3 * 9 * 64, normed=4 * 192, activated=4 * 192, added=2 * 192)


@pytest.mark.parametrize(("kind", "side", "looked_at"), [("max", 3, 9), ("max", 2, 4), ("avg", 2, 4), ("avg", 3, 9)])
def test_pools(tmp_path: Path, kind: str, side: int, looked_at: int) -> None:
    """3 * 4*4 windows. They are no multiply-adds for TRD."""
    found = count(tmp_path, f"name: a, module: Pool, args: {{kind: {kind}, kernel_size: {side}}}")
    assert found == Operations(pooled=looked_at * 48)
    assert (found.sdpoint_flops, found.trd_macs) == (looked_at * 48, 0)


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_classifier(tmp_path: Path, pool: str) -> None:
    """The pool of 4 channels counts 9*9 of 8*8 cells; then 4*5 weights and 5 biases."""
    conv = "{name: a, module: BareConv, args: {out_channels: 4}}"
    head = f"{{name: classify, module: Classify, args: {{pool: {pool}}}}}"
    text = f"name: tiny\nbackbone:\n  - {conv}\nhead:\n  - {head}\n"
    found = count_operations(build_on_meta(str(write_model(tmp_path, text)), 5), 8)
    assert found == Operations(macs=3 * 9 * 4 * 64 + 20, biases=5, pooled_globally=4 * 81)


def test_classifier_of_every_cell(tmp_path: Path) -> None:
    """3*5 weights and 5 biases at 8*8 cells; the mean of the logits counts nothing."""
    text = "name: tiny\nhead:\n  - {name: classify, module: Classify, from: image, args: {average_last: true}}\n"
    found = count_operations(build_on_meta(str(write_model(tmp_path, text)), 5), 8)
    assert found == Operations(macs=15 * 64, biases=5 * 64)


# ------------------------------------------------------------------------------------------- instances


def test_behind_a_point(tmp_path: Path) -> None:
    """The second block works on a quarter of the cells. The point's own pool counts nothing."""
    graph = rows(tmp_path, "name: a, module: PreResidualStage, args: {out_channels: 3}, repeats: 2")
    plain, found = count_operations(graph, 8), count_operations(graph, 8, Instance(1, 0.5))
    for measure in ("macs", "normed", "activated", "added"):
        assert getattr(found, measure) == getattr(plain, measure) * 5 / 8
    assert found.pooled == found.pooled_globally == 0
    assert instance_of(graph) == PLAIN
    assert count_operations(graph, 8) == plain


def test_stem_pool_as_a_point(tmp_path: Path) -> None:
    """An adaptive pool from 8x8 to 2x2 takes the place of the one to 4x4, and counts nothing itself."""
    pool, block = "name: a, module: Pool", "name: b, module: PreResidualStage, args: {out_channels: 3}"
    graph = rows(tmp_path, pool, block)
    found = count_operations(graph, 8, Instance(1, 0.5))
    assert found == Operations(macs=2 * 3 * 3 * 9 * 4, normed=2 * 12, activated=2 * 12, added=12)


def test_no_such_point(tmp_path: Path) -> None:
    graph = rows(tmp_path, "name: a, module: PreResidualStage, args: {out_channels: 3}")
    with pytest.raises(InputError, match=r"^point: rows has no point 2; allowed: 1 to 1, or 0 for the plain network$"):
        count_operations(graph, 8, Instance(2, 0.5))


def test_size_that_does_not_suit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^image size -8: does not suit rows: .*negative dimension"):
        count(tmp_path, "name: a, module: Pool", side=-8)


# ---------------------------------------------------------------------------------- published networks


@pytest.mark.parametrize(
    ("model", "image_size", "num_classes", "expected"),
    thin([("preresnet101", 224, 1000, 15_661_473_256), ("resnext101", 224, 1000, 16_013_031_400)]),
)
def test_published_counter_of_sdpoint(model: str, image_size: int, num_classes: int, expected: int) -> None:
    """What the published code counts of its own networks."""
    assert count_operations(graph_of(model, num_classes), image_size).sdpoint_flops == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    thin(
        [
            ("wrn-28-10", 10_494_734_858),
            ("wrn-40-4", 2_602_030_090),
            ("densenet-bc-40-60", 3_606_833_050),
            pytest.param("densenet-bc-250-24", 10_965_643_906, marks=pytest.mark.slow),
            pytest.param("densenet-bc-190-40", 18_733_806_370, marks=pytest.mark.slow),
        ],
        1,
    ),
)
def test_rules_of_sdpoint_on_cifar(model: str, expected: int) -> None:
    """Sums by the same rules where pools are functions, which the published counter does not see."""
    found = count_operations(graph_of(model, 10), 32)
    assert found.sdpoint_flops - found.pooled - found.pooled_globally == expected
    assert found.sdpoint_flops == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize(
    ("model", "image_size", "num_classes", "macs", "expected"),
    thin(
        [
            ("resnet56-bottleneck", 32, 100, 87_237_632, 89_637_988),
            ("resnet110-bottleneck", 32, 100, 167_453_696, 171_918_436),
            ("resnet110-bottleneck", 64, 200, 669_763_584, 687_622_344),
            ("vgg19-bn", 32, 100, 398_182_400, 399_091_812),
            ("densenet-bc-100-12", 32, 100, 287_960_472, 296_513_788),
            pytest.param("densenet-bc-190-40", 32, 100, 9_302_142_840, 9_388_752_860, marks=pytest.mark.slow),
            ("wrn-28-10", 32, 100, 5_243_386_368, 5_248_006_756),
            ("resnet50", 224, 1000, 4_089_184_256, 4_111_413_224),
        ],
        0,
        3,
    ),
)
def test_networks_of_trd(model: str, image_size: int, num_classes: int, macs: int, expected: int) -> None:
    """Multiply-adds, and with biases and 2 for each value of a norm."""
    found = count_operations(graph_of(model, num_classes), image_size)
    assert (found.macs, found.trd_macs) == (macs, expected)


@pytest.mark.parametrize(
    ("image_size", "macs"),
    thin([(448, 16_350_593_024), (112, 1_077_899_264), (84, 684_342_016), (56, 299_027_456)], 2),
)
def test_multiply_adds_of_reduced_images(image_size: int, macs: int) -> None:
    """ResNet-50's at sizes that are no multiples of 32 too."""
    assert count_operations(graph_of("resnet50", 1000), image_size).macs == macs


def stages(model: str) -> list[tuple[int, int, int]]:
    """Blocks, channels and side of the map of each stage of a residual network."""
    wide = {"wrn-28-10": (4, 10), "wrn-40-4": (6, 4)}
    if model in wide:
        blocks, widen = wide[model]
        return [(blocks, 16 * widen, 32), (blocks, 32 * widen, 16), (blocks, 64 * widen, 8)]
    return [(3, 256, 56), (4, 512, 28), (23, 1024, 14), (3, 2048, 7)]


def published_difference(model: str, instance: Instance) -> int:
    """What the published counter has less than ours.

    It counts the addition of the block with the active point at the size behind the point. Networks for CIFAR were
    counted without their global pool. Where it met the first point of a network first, it counted the plain max-pool
    too, from which the network learnt the size.
    """
    image_net = model.endswith("101")
    if image_net and instance.point == 1:
        return -9 * 64 * 56 * 56 if instance.ratio == 0.5 else 0
    maps = [(channels, side) for blocks, channels, side in stages(model) for _ in range(blocks)]
    channels, side = maps[instance.point - (2 if image_net else 1)]
    addition = channels * (side**2 - round(side * instance.ratio) ** 2)
    last_channels, last_side = maps[-1]
    global_pool = last_channels * (round(last_side * instance.ratio) + 1) ** 2
    return addition + (0 if image_net else global_pool)


@pytest.mark.parametrize(("model", "step"), thin([("wrn-28-10", 7), *((model, 1) for model in INSTANCES)], 0))
def test_instances(model: str, step: int) -> None:
    """All of them agree within 0.1 %; those of residual networks exactly, apart from what is known."""
    image_size, num_classes = (224, 1000) if model.endswith("101") else (32, 10)
    graph = graph_of(model, num_classes)
    assert 2 * len(find_points(graph)) == len(INSTANCES[model])
    for name, published in list(INSTANCES[model].items())[::step]:
        point, ratio = name.split("@")
        instance = Instance(int(point), float(ratio))
        found = count_operations(graph, image_size, instance).sdpoint_flops
        assert found == pytest.approx(published, rel=1e-3), name
        if not model.startswith("densenet"):
            assert found - published == published_difference(model, instance), name
