"""More objects in an image than detections are counted or kept."""

from __future__ import annotations

import contextlib
import io

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detect.errors import InputError
from detect.evaluation.coco import METRICS, coco_metrics, metrics_at, to_results
from detect.evaluation.crowding import measure_crowding, warn_of_crowding
from detect.evaluation.detection import Evaluation
from detect.evaluation.postprocess import COCO_SETTINGS, settings_for_limit
from detect.evaluation.report import coco_table, metrics_record
from tests.evaluation.synthetic import make_found, make_table, random_problem

ENGINES = ["pycocotools", "hotcoco"]


def grid(count, label=0):
    """Squares of 40 px in rows of 100, as objects (label, x1, y1, x2, y2)."""
    return [(label, 50 * (i % 100), 50 * (i // 100), 50 * (i % 100) + 40, 50 * (i // 100) + 40) for i in range(count)]


def perfect(images):
    """Detections that are the objects, the first ones the surest."""
    return make_found(
        [(row, *one, round(1 - i / 1000, 3)) for row, objects in enumerate(images) for i, one in enumerate(objects)]
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_perfect_boxes_of_125_objects(engine):
    """COCO counts 100: a recall of 0.8, which 81 of the 101 recall points do not exceed."""
    images = [grid(125)]
    table, found = make_table(images, size_hw=(200, 5000)), perfect(images)
    usual = coco_metrics(table, found, engine)
    assert usual["AP"] == pytest.approx(81 / 101)
    assert usual["AR_100"] == pytest.approx(0.8)
    for limit in (125, 500):
        metrics = coco_metrics(table, found, engine, limit)
        assert (metrics["AP"], metrics[f"AR_{limit}"]) == (pytest.approx(1), pytest.approx(1))
    assert coco_metrics(table, found, engine, 25)["AR_25"] == pytest.approx(0.2)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_limit_is_of_a_class_and_image(engine):
    """100 objects of each of two classes are 200 in an image, and COCO's limit loses none of them."""
    images = [grid(100) + grid(200, label=1)[100:], grid(1)]
    table, found = make_table(images, size_hw=(200, 5000)), perfect(images)
    assert coco_metrics(table, found, engine)["AP"] == pytest.approx(1)
    assert measure_crowding(table).is_within


@pytest.mark.parametrize("limit", [2, 100, 300])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_as_pycocotools_with_its_parameter(engine, limit):
    table, found = random_problem(3, num_images=10)
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = table.to_coco()
        ground.createIndex()
        evaluator = COCOeval(ground, ground.loadRes(to_results(table, found)), "bbox")
        evaluator.params.maxDets = [1, 10, limit] if limit > 10 else [1, limit]
        evaluator.evaluate()
        evaluator.accumulate()
    precision, recall = (evaluator.eval[key][..., 0, -1] for key in ("precision", "recall"))
    metrics = coco_metrics(table, found, engine, limit)
    assert metrics["AP"] == pytest.approx(precision[precision > -1].mean(), abs=1e-12)
    assert metrics[f"AR_{limit}"] == pytest.approx(recall[recall > -1].mean(), abs=1e-12)


def test_names_of_the_numbers():
    assert metrics_at(100) is METRICS
    assert list(metrics_at(500)) == [
        *("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L"),
        *("AR_500", "AR_S", "AR_M", "AR_L"),
    ]


def test_table_and_record_are_named_by_their_limit():
    images = [grid(150)]
    table, found = make_table(images, size_hw=(200, 5000)), perfect(images)
    usual, other = coco_metrics(table, found, "hotcoco"), coco_metrics(table, found, "hotcoco", limit=200)
    lines = coco_table(other).splitlines()
    assert lines[0] == "Metrics with up to 200 detections of a class and image, which COCO limits to 100"
    assert lines[1].startswith("  AP      1.000   precision, IoU 0.50:0.95, all objects, 200 detections per class")
    assert lines[12].split() == ["class", "AP", "AP50", "AP_S", "AP_M", "AP_L", "AR_200", "objects"]
    record = metrics_record(Evaluation(usual, found, table, COCO_SETTINGS, {}, other), {})
    assert record["AR_100"] == pytest.approx(2 / 3)
    assert (record["other_limit"]["max_det"], record["other_limit"]["AR_200"]) == (200, pytest.approx(1))
    assert "other_limit" not in metrics_record(Evaluation(usual, found, table, COCO_SETTINGS, {}), {})


def test_best_of_each_image():
    found = make_found([(0, 0, 0, 0, 9, 9, score) for score in (0.9, 0.8, 0.7)] + [(2, 1, 0, 0, 9, 9, 0.1)])
    assert found.best(2).scores.tolist() == [0.9, 0.8, 0.1]
    assert found.best(2).rows.tolist() == [0, 0, 2]
    assert len(make_found([]).best(2)) == 0


def test_objects_beyond_the_limits():
    """250 objects of one class: 150 beyond 100. With 60 of the other there are 310; crowds do not count."""
    crowd = [(0, 0, 0, 5, 5, True)] * 20
    found = measure_crowding(make_table([grid(250) + grid(60, label=1) + crowd, grid(90)]))
    assert (found.objects, found.beyond_limit, found.beyond_kept) == (400, 150, 10)
    assert (found.most_of_class, found.most, found.sufficient_limit) == (250, 310, 300)
    assert found.line() == (
        "37.5 % of the objects lie beyond the 100 detections of a class and image that the metrics count (an image has "
        "up to 250 of a class), and 2.5 % of the objects lie beyond the 300 detections of an image that are kept (an "
        "image has up to 310 objects)"
    )


@pytest.mark.parametrize("images", [[], [[]], [grid(100)]])
def test_nothing_lies_beyond(images, caplog):
    assert measure_crowding(make_table(images)).is_within
    warn_of_crowding("pets val", make_table(images))
    assert caplog.messages == []


@pytest.mark.parametrize("counts", [(400,), (150, 90), (500, 500), (100, 100, 100, 100, 100, 100)])
def test_the_proposed_limit_suffices(counts, caplog):
    """Where it is used nothing is warned of, and without it something is."""
    objects = [one for label, count in enumerate(counts) for one in grid(count, label)]
    names = "abcdef"[: len(counts)]
    table = make_table([objects], names, range(1, len(counts) + 1))
    warn_of_crowding("pets val", table, measure_crowding(table).sufficient_limit)
    assert caplog.messages == []
    warn_of_crowding("pets val", table)
    (message,) = caplog.messages
    assert message.startswith("pets val: ")
    assert f"detect val --max-det {measure_crowding(table).sufficient_limit} counts all" in message


def test_detections_that_are_kept_for_a_limit():
    """As for COCO's 100, three classes may have as many; never fewer than by default."""
    kept = [settings_for_limit(COCO_SETTINGS, *case).max_detections for case in ((500, 1), (500, 10), (50, 10))]
    assert kept == [500, 1500, 300]
    with pytest.raises(InputError, match="most detections of a class and image: must be at least 1, found 0"):
        settings_for_limit(COCO_SETTINGS, 0, 3)
