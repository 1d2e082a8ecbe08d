from __future__ import annotations

import builtins
import contextlib
import dataclasses
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detect.config.data import DataConfig, SplitConfig
from detect.errors import InputError
from detect.evaluation.coco import ABSENT, CLASS_METRICS, METRICS, coco_metrics, collect, to_results
from detect.structures import Detections
from tests.evaluation.synthetic import make_found, make_table, random_problem

ENGINES = ["pycocotools", "hotcoco"]


def reference(truth: dict, results: list[dict], category_id: int | None = None) -> np.ndarray:
    """The 12 numbers, straight from pycocotools by its documented calls."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = json.loads(json.dumps(truth))
        ground.createIndex()
        evaluator = COCOeval(ground, ground.loadRes(json.loads(json.dumps(results))), "bbox")
        if category_id is not None:
            evaluator.params.catIds = [category_id]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_found_is_zero_where_there_are_objects(engine):
    # One object of 40 x 40 = 1600 px² (medium), so small and large have no ground truth.
    metrics = coco_metrics(make_table([[(0, 10, 10, 50, 50)], []]), make_found([]), engine)
    expected = dict.fromkeys(METRICS, 0.0) | {"AP_S": -1, "AP_L": -1, "AR_S": -1, "AR_L": -1}
    assert metrics.values == expected
    assert metrics.per_class["a"]["AP"] == 0
    assert metrics.per_class["b"]["AP"] == ABSENT
    assert metrics.per_class["a"]["objects"] == 1
    assert metrics.per_class["b"]["objects"] == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("found", [[], [(0, 1, 10, 10, 50, 50, 0.9)]], ids=["nothing found", "something found"])
def test_no_ground_truth_is_minus_one(engine, found):
    metrics = coco_metrics(make_table([[], []]), make_found(found), engine)
    assert set(metrics.values.values()) == {ABSENT}


@pytest.mark.parametrize("engine", ENGINES)
def test_values_derived_by_hand(engine):
    # Class a: two objects. The better detection is exact, the other one is of nothing: precision 1 up to recall 0.5,
    # then nothing. Of the 101 recall points 0, 0.01 ... 0.50, 51 are reached: AP = 51 / 101 at every IoU; recall 1 / 2.
    # Class b: one object 100 x 100, found with 100 x 78 inside it: IoU 0.78, right at the 6 thresholds 0.50 ... 0.75 of
    # 10. AP = 0.6, AP50 = AP75 = 1, recall 0.6.
    table = make_table([[(0, 0, 0, 50, 50), (0, 100, 100, 150, 150)], [(1, 200, 200, 300, 300)]])
    found = make_found([(0, 0, 0, 0, 50, 50, 0.9), (0, 0, 300, 300, 350, 350, 0.8), (1, 1, 200, 200, 300, 278, 0.7)])
    metrics = coco_metrics(table, found, engine)
    half = 51 / 101
    assert metrics["AP"] == pytest.approx((half + 0.6) / 2)
    assert metrics["AP50"] == pytest.approx((half + 1) / 2)
    assert metrics["AP75"] == pytest.approx((half + 1) / 2)
    assert metrics["AP_S"] == ABSENT
    assert metrics["AP_M"] == pytest.approx(half)  # 50² = 2500 px²
    assert metrics["AP_L"] == pytest.approx(0.6)  # 100² = 10000 px²
    assert metrics["AR_100"] == pytest.approx((0.5 + 0.6) / 2)
    assert metrics.per_class["b"]["AP"] == pytest.approx(0.6)
    assert metrics.per_class["a"]["AR_100"] == pytest.approx(0.5)
    assert metrics.precision.shape == (10, 101, 2)
    assert metrics.precision[0, 50, 0] == pytest.approx(1)
    assert metrics.precision[0, 51, 0] == 0


def test_first_annotation_counts():
    # pycocotools takes a match with annotation 0 for a miss; ours are numbered from 1, so a perfect detector is
    # perfect.
    metrics = coco_metrics(make_table([[(0, 10, 10, 50, 50)]]), make_found([(0, 0, 10, 10, 50, 50, 0.5)]))
    assert metrics["AP"] == pytest.approx(1)


def test_crowd_regions_neither_help_nor_hurt():
    table = make_table([[(0, 0, 0, 40, 40), (0, 100, 100, 400, 400, True)]])
    exact = (0, 0, 0, 0, 40, 40, 0.5)
    in_crowd = (0, 0, 200, 200, 240, 240, 0.9)
    metrics = coco_metrics(table, make_found([exact, in_crowd]))
    assert metrics["AP"] == pytest.approx(1)
    assert metrics.per_class["a"]["objects"] == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_all_numbers_are_those_of_pycocotools(engine, seed):
    table, found = random_problem(seed)
    metrics = coco_metrics(table, found, engine)
    truth, results = table.to_coco(), to_results(table, found)
    np.testing.assert_array_equal(list(metrics.values.values()), reference(truth, results))
    assert 0.05 < metrics["AP"] < 0.95
    for name, category_id in zip(table.names, table.category_ids.tolist(), strict=True):
        alone = dict(zip(METRICS, reference(truth, results, category_id), strict=True))
        for key in CLASS_METRICS:
            assert metrics.per_class[name][key] == alone[key], (name, key)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_engines_give_the_same_bits(seed):
    table, found = random_problem(seed + 10, num_images=60)
    first, second = (coco_metrics(table, found, engine) for engine in ENGINES)
    assert first.values == second.values
    assert first.per_class == second.per_class
    np.testing.assert_array_equal(first.precision, second.precision)


def test_classes_of_the_same_name_are_both_reported():
    table = make_table([[(0, 0, 0, 40, 40), (1, 50, 50, 90, 90)]], names=("x", "x"), category_ids=(4, 9))
    metrics = coco_metrics(table, make_found([(0, 1, 50, 50, 90, 90, 0.5)]))
    assert metrics.per_class["x (id 4)"]["AP"] == 0
    assert metrics.per_class["x (id 9)"]["AP"] == pytest.approx(1)


def test_missing_hotcoco_is_a_clear_error(monkeypatch):
    real_import = builtins.__import__

    def without_hotcoco(name, *args, **kwargs):
        if name == "hotcoco":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_hotcoco)
    with pytest.raises(InputError, match=r"hotcoco is not installed; pip install hotcoco"):
        coco_metrics(make_table([[]]), make_found([]), "hotcoco")


def test_nothing_is_printed(capfd):
    table, found = random_problem(0, num_images=5)
    for engine in ENGINES:
        coco_metrics(table, found, engine)
    assert capfd.readouterr() == ("", "")


def test_results_have_the_ids_of_the_file():
    table = make_table([[], []], category_ids=(7, 3), image_ids=[900, 12])
    found = make_found([(1, 0, 1.23456, 2, 11.23456, 22, 0.1234567)])
    assert to_results(table, found) == [
        {"image_id": 12, "category_id": 7, "bbox": [1.235, 2.0, 10.0, 20.0], "score": 0.12346}
    ]


def test_results_of_data_without_ids_name_the_file():
    (result,) = to_results(make_table([[], []]), make_found([(1, 0, 0, 0, 5, 5, 0.5)]))
    assert result["image_id"] == 2
    assert result["file_name"] == "1.jpg"


def detections(boxes, scores, labels) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        (9, 9),
        ("a", "b"),
    )


def test_collect_nothing():
    found = collect({0: detections([], [], []), 1: detections([], [], [])}, np.array([0, 1]))
    assert len(found) == 0
    assert found.boxes_xywh_px.shape == (0, 4)
    assert len(collect({}, np.array([0, 1]))) == 0


def test_collect_sorts_by_row_and_maps_classes():
    second = detections([[1, 2, 4, 8]], [0.5], [1])
    first = detections([[0, 0, 1, 1], [0, 0, 2, 2]], [0.75, 0.25], [0, 1])
    found = collect({5: second, 2: first}, label_of=np.array([1, 0]))
    assert found.rows.tolist() == [2, 2, 5]
    assert found.labels.tolist() == [1, 0, 0]
    assert found.scores.tolist() == [0.75, 0.25, 0.5]
    assert found.boxes_xywh_px[2].tolist() == [1, 2, 3, 6]


@pytest.mark.slow
def test_engines_agree_on_real_annotations(real_data):
    from detect.data.datasets import open_split

    folder = real_data / "tiny_coco"
    split = SplitConfig(images="val2017", annotations="instances_val2017.json")
    table = open_split(DataConfig("tiny", str(folder), {"val": split}), "val")
    rng = np.random.default_rng(0)
    image_of_box = np.repeat(np.arange(len(table)), np.diff(table.box_offsets))
    entries = []
    for row, label, box in zip(image_of_box, table.labels, table.boxes_xyxy_px, strict=True):
        for _ in range(2):
            moved = box + rng.normal(0, 0.1, 4) * np.tile(box[2:] - box[:2], 2)
            moved[2:] = np.maximum(moved[2:], moved[:2] + 1)
            entries.append((row, label, *moved, round(float(rng.random()), 2)))
    found = make_found(entries)
    first, second = (coco_metrics(table, found, engine) for engine in ENGINES)
    original = json.loads((folder / "instances_val2017.json").read_text())
    np.testing.assert_array_equal(list(first.values.values()), reference(original, to_results(table, found)))
    assert first.values == second.values
    assert first.per_class == second.per_class
    assert 0.1 < first["AP"] < 0.9


def test_areas_of_the_file_and_of_the_boxes() -> None:
    """Two boxes of 44 and 88 px, found: small by a placeholder of 1, medium by width * height (1,936 and 7,744)."""
    boxes = [(0, 0, 0, 44, 44), (0, 100, 100, 188, 188)]
    table = make_table([boxes])
    found = make_found([(0, *box, 0.9) for box in boxes])
    placeholder = dataclasses.replace(table, areas=np.ones(2))
    by_file, by_boxes = coco_metrics(placeholder, found), coco_metrics(placeholder.with_box_areas(), found)
    assert (by_file["AP_S"], by_file["AP_M"]) == (pytest.approx(1), -1)
    assert (by_boxes["AP_S"], by_boxes["AP_M"]) == (-1, pytest.approx(1))
    assert by_file["AP"] == by_boxes["AP"]


def test_results_have_ids_that_are_no_numbers() -> None:
    """Text ids are numbered for pycocotools, and given back in results."""
    table = make_table([[(0, 0, 0, 40, 40)], [(1, 50, 50, 90, 90)]], image_ids=[1, 2])
    ids = {
        "image_ids_json": np.array([b'"left"', b"9223372036854775808"]),
        "category_ids_json": np.array([b"1", b'"x"']),
    }
    found = make_found([(0, 0, 0, 0, 40, 40, 0.9), (1, 1, 50, 50, 90, 90, 0.8)])
    table = dataclasses.replace(table, **ids)
    assert [(one["image_id"], one["category_id"]) for one in to_results(table, found)] == [("left", 1), (2**63, "x")]
    assert coco_metrics(table, found)["AP"] == pytest.approx(1)
