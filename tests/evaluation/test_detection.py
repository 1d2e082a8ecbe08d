from __future__ import annotations

import dataclasses
import json
import multiprocessing
import time

import numpy as np
import pytest
import torch

from detect.data.annotations import encode_paths
from detect.data.detection.images import ImageFiles
from detect.data.images import write_image
from detect.errors import InputError
from detect.evaluation.loop import log_class_differences, match_classes
from detect.evaluation.outputs import EvaluationOutputs
from detect.evaluation.postprocess import PredictSettings
from detect.evaluation.tiling import TILED_COCO_SETTINGS, Tiling
from detect.models.build import build_model
from tests.evaluation.synthetic import evaluate, make_table

CPU = torch.device("cpu")


class BrightBoxes(torch.nn.Module):
    """Finds one white rectangle per image, as class 1 with certainty: a network whose answer is known."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.max_reduction = 32

    def forward(self, images):
        white = (images > 0.9).all(dim=1)
        rows = []
        for image in white:
            ys, xs = torch.nonzero(image, as_tuple=True)
            if len(xs):
                x1, x2, y1, y2 = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
                rows.append(torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]).float())
            else:
                rows.append(torch.zeros(4))
        boxes = torch.stack(rows)
        certainty = (boxes[:, 2:3] > 0).float()
        return [torch.cat([boxes, certainty, torch.zeros(len(boxes), 1), certainty], dim=1)[:, None]]

    def decode(self, raw, image_hw=None):
        return torch.cat(raw, dim=1)


@pytest.fixture
def table(tmp_path):
    """Four images of different shapes with a white rectangle each, annotated as class 1, and a black one."""
    shapes = [(96, 128), (128, 96), (64, 128), (128, 128), (50, 70)]
    boxes = [(32, 16, 64, 48), (16, 32, 48, 96), (64, 16, 96, 48), (0, 0, 128, 64)]
    paths = []
    for number, (height, width) in enumerate(shapes):
        image = np.zeros((height, width, 3), np.uint8)
        if number < len(boxes):
            x1, y1, x2, y2 = boxes[number]
            image[y1:y2, x1:x2] = 255
        paths.append(tmp_path / f"{number}.png")
        write_image(paths[-1], image)
    made = make_table([[(1, *map(float, box))] for box in boxes] + [[]], image_ids=[50, 40, 30, 20, 10])
    sizes = np.array(shapes, dtype=np.int32)
    return dataclasses.replace(made, image_paths=encode_paths(paths), sizes_hw=sizes)


OPTIONS = {"image_size": 128, "batch_size": 2, "workers": 0, "device": CPU, "progress": False}


def test_perfect_boxes_score_one(table):
    evaluation = evaluate(BrightBoxes(), table, **OPTIONS)
    assert evaluation.metrics["AP"] == pytest.approx(1)
    assert evaluation.metrics.per_class["b"]["objects"] == 4
    results = evaluation.results
    assert [result["image_id"] for result in results] == [50, 40, 30, 20]
    assert results[0] == {"image_id": 50, "category_id": 2, "bbox": [32.0, 16.0, 32.0, 32.0], "score": 1.0}


@pytest.mark.parametrize("image_size", [64, 256])
def test_other_network_sizes_give_boxes_in_image_pixels(table, image_size):
    evaluation = evaluate(BrightBoxes(), table, **OPTIONS | {"image_size": image_size})
    boxes = np.array([result["bbox"] for result in evaluation.results])
    np.testing.assert_allclose(boxes, [[32, 16, 32, 32], [16, 32, 32, 64], [64, 16, 32, 32], [0, 0, 128, 64]], atol=2)


def test_batches_and_workers_do_not_change_the_result(table):
    one = evaluate(BrightBoxes(), table, **OPTIONS)
    other = evaluate(BrightBoxes(), table, **OPTIONS | {"batch_size": 5, "workers": 1})
    assert one.results == other.results


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_detections_of_a_network_do_not_depend_on_the_batch_size(table, workers):
    """Images of three padded shapes, wide, square and tall; two that are padded alike: 96 x 128 and 91 x 128 of 50 x
    70."""
    rng = np.random.default_rng(0)
    for row, (height, width) in enumerate(table.sizes_hw.tolist()):
        write_image(table.path(row), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    torch.manual_seed(0)
    model = build_model("yolov5n+width=0.1", num_classes=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)  # an untrained head hardly looks at its input
    options = OPTIONS | {"settings": PredictSettings(0.001, 0.6, 30, multi_label=True), "workers": workers}
    alone = evaluate(model, table, **options | {"batch_size": 1})
    together = evaluate(model, table, **options | {"batch_size": 8})
    assert len(alone.found) == len(together.found) == 5 * 30
    # Each detection has its like; the order of equal scores is free.
    rows_and_labels = [np.stack([e.found.rows, e.found.labels], axis=1) for e in (alone, together)]
    alike = (rows_and_labels[0][:, None] == rows_and_labels[1]).all(axis=2)
    alike &= np.abs(alone.found.scores[:, None] - together.found.scores) < 1e-4
    alike &= (np.abs(alone.found.boxes_xywh_px[:, None] - together.found.boxes_xywh_px) < 2e-3).all(axis=2)
    assert alike.any(axis=0).all()
    assert alike.any(axis=1).all()
    assert together.metrics["AP"] == pytest.approx(alone.metrics["AP"], abs=1e-4)


def test_batches_are_multiples_of_the_coarsest_cells(table):
    seen = []
    model = BrightBoxes()
    model.max_reduction = 64
    model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    evaluation = evaluate(model, table, **OPTIONS)
    assert evaluation.metrics["AP"] == pytest.approx(1)
    assert set(seen) == {(64, 128), (128, 128)}  # 96 is no multiple of 64
    with pytest.raises(InputError, match="image size: must be a multiple of 64, found 96"):
        evaluate(model, table, **OPTIONS | {"image_size": 96})


@pytest.mark.parametrize("workers", [0, 1])
def test_tiles_of_one_image_are_looked_at_together(table, workers):
    """Tiles of 64 px. 96 x 128 is 2 x 3 of them: 128 - 64 is two steps of at most 51."""
    seen = []
    model = BrightBoxes()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    options = OPTIONS | {"batch_size": 4, "workers": workers}
    evaluation = evaluate(model, table, **options, tiling=Tiling(64), settings=TILED_COCO_SETTINGS)
    assert seen[:3] == [4, 2, 1]
    assert evaluation.metrics["AR_100"] == pytest.approx(1)  # the whole view has found them all
    assert list(evaluation.speed_ms) == ["preprocess", "network", "postprocess"]
    assert evaluation.settings == TILED_COCO_SETTINGS


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_image_no_larger_than_a_tile_is_evaluated_as_without_tiles(table, workers):
    options = OPTIONS | {"workers": workers}
    tiled = evaluate(BrightBoxes(), table, **options, tiling=Tiling(128))
    assert tiled.results == evaluate(BrightBoxes(), table, **options).results


@pytest.mark.parametrize("tiling", [None, Tiling(128)])
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_damaged_images_are_missed_or_refused(table, workers, tiling):
    table.path(3).write_bytes(b"no image")
    evaluation = evaluate(BrightBoxes(), table, **OPTIONS | {"workers": workers}, tiling=tiling)
    assert [result["image_id"] for result in evaluation.results] == [50, 40, 30]
    assert evaluation.metrics["AR_100"] == pytest.approx(0.75)  # its object counts as missed
    with pytest.raises(InputError, match=r"3\.png: is not an image"):
        evaluate(BrightBoxes(), table, **OPTIONS | {"workers": workers}, tiling=tiling, strict=True)


def test_classes_are_mapped_by_name(table):
    evaluation = evaluate(BrightBoxes(), table, **OPTIONS, names=("b", "a"))
    assert {result["category_id"] for result in evaluation.results} == {1}
    assert evaluation.metrics["AP"] == 0


def test_unlabelled_split_gives_results_only(table):
    bare = dataclasses.replace(table.without_background(), is_labelled=False)
    evaluation = evaluate(BrightBoxes(), bare, **OPTIONS)
    assert evaluation.metrics is None
    assert len(evaluation.results) == 4


def test_speed_has_its_three_parts(table):
    speed = evaluate(BrightBoxes(), table, **OPTIONS).speed_ms
    assert list(speed) == ["preprocess", "network", "postprocess"]
    assert all(value > 0 for value in speed.values())


@pytest.mark.parametrize("workers", [0, 1])
def test_preprocessing_is_the_time_of_the_process_that_does_it(table, workers, monkeypatch):
    """Each of five images takes at least 20 ms to read, also while the network is busy with another."""
    if workers and multiprocessing.get_start_method() != "fork":
        pytest.skip("the workers of this platform do not inherit the slow reader")
    read = ImageFiles.read

    def slow_read(self, row):
        time.sleep(0.02)
        return read(self, row)

    monkeypatch.setattr(ImageFiles, "read", slow_read)
    model = BrightBoxes()
    model.register_forward_pre_hook(lambda *_: time.sleep(0.1))
    speed = evaluate(model, table, **OPTIONS | {"batch_size": 1, "workers": workers}).speed_ms
    assert speed["preprocess"] >= 20
    assert speed["network"] >= 100


def test_training_goes_on_as_before(table):
    model = BrightBoxes().train()
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, table, **OPTIONS)
    assert model.training
    assert not model.norm.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("engine", ["pycocotools", "hotcoco"])
def test_an_untrained_network_is_evaluated(table, engine):
    torch.manual_seed(0)
    model = build_model("yolov5n+width=0.1", num_classes=2)
    evaluation = evaluate(model, table, **OPTIONS, engine=engine)
    assert 0 <= evaluation.metrics["AP"] < 0.5
    assert all(0 <= result["score"] <= 1 for result in evaluation.results)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 100}, "image size: must be a multiple of 32, found 100"),
        ({"image_size": 0}, "image size: must be a multiple of 32, found 0"),
        ({"batch_size": 0}, "batch size: must be at least 1, found 0"),
        ({"workers": -1}, "workers: must be at least 0, found -1"),
    ],
)
def test_settings_out_of_range(table, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(BrightBoxes(), table, **OPTIONS | options)


@pytest.mark.parametrize(
    ("model", "data", "expected"),
    [
        (("a", "b"), ("a", "b"), [0, 1]),
        (("b", "c", "a"), ("a", "b", "c"), [1, 2, 0]),
        (("x", "x"), ("x", "x"), [0, 1]),
    ],
)
def test_match_classes(model, data, expected):
    assert match_classes(model, data).tolist() == expected


@pytest.mark.parametrize(
    ("model", "data", "expected"),
    [
        (("a", "b"), ("a", "c"), [0, -1]),
        (("a",), ("b", "a"), [1]),
        (("a", "a", "b"), ("a", "b", "b", "c", "a", "A"), [-1, -1, -1]),
        (("a", "a", "b"), ("b", "a"), [-1, -1, 0]),
        (("Traffic  light", "b"), ("b", "traffic light"), [1, 0]),
    ],
)
def test_some_classes_are_shared(model, data, expected):
    if max(expected) < 0:
        with pytest.raises(
            InputError, match="none in common; the checkpoint has 'a', 'a', 'b', the data 'a', 'b', 'b'"
        ):
            match_classes(model, data)
    else:
        assert match_classes(model, data).tolist() == expected


def test_what_is_left_out_is_told(caplog):
    log_class_differences(("a", "b"), ("a", "b"))
    assert not caplog.records
    log_class_differences(("dog", "cat", "Cow"), ("cow", "emu", "dog"))
    assert [record.getMessage() for record in caplog.records] == [
        "classes: 2 of the model's 3 and the data's 3 are the same; the data lacks 'cat': not evaluated, no error; "
        "the model lacks 'emu': their objects count as missed; case and blanks apart, 'Cow' is 'cow'"
    ]


def test_detections_of_classes_that_the_data_lacks_are_no_errors(table):
    """The model finds its class 1. Called as the data's class: AP 1. Called otherwise, it is not asked for."""
    found = evaluate(BrightBoxes(), table, **OPTIONS, names=("zebra", "b"))
    assert found.metrics["AP"] == pytest.approx(1)
    assert found.settings.classes == (1,)
    found = evaluate(BrightBoxes(), table, **OPTIONS, names=("b", "zebra"))
    assert (found.metrics["AP"], len(found.found)) == (0, 0)


def test_outputs_are_written(table, tmp_path):
    outputs = EvaluationOutputs(tmp_path / "m.json", tmp_path / "r.json", tmp_path / "pictures")
    outputs.check(table)
    evaluation = evaluate(BrightBoxes(), table, **OPTIONS)
    lines = outputs.write(evaluation, {"split": "val"})
    assert len(lines) == 3
    assert json.loads((tmp_path / "r.json").read_text()) == evaluation.results
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["AP"] == pytest.approx(1)
    assert metrics["settings"]["score_threshold"] == 0.001
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "confusion_matrix.png",
        "examples.jpg",
        "false_positives.jpg",
        "misses.jpg",
        "precision_recall.png",
        "worst.jpg",
    ]


def test_outputs_of_an_unlabelled_split(table, tmp_path, caplog):
    bare = dataclasses.replace(table, is_labelled=False)
    with pytest.raises(InputError, match=r"no annotations.*ask for --results-json"):
        EvaluationOutputs(metrics_json=tmp_path / "m.json").check(bare)
    outputs = EvaluationOutputs(tmp_path / "m.json", tmp_path / "r.json", tmp_path / "pictures")
    outputs.check(bare)
    assert "--metrics-json is ignored" in caplog.text
    outputs.write(evaluate(BrightBoxes(), bare, **OPTIONS), {})
    assert (tmp_path / "r.json").exists()
    assert not (tmp_path / "m.json").exists()
    assert not (tmp_path / "pictures").exists()


def test_outputs_in_wrong_places(tmp_path):
    with pytest.raises(InputError, match=r"--results-json .*: is a folder; name a file in it"):
        EvaluationOutputs(results_json=tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match=r"--out .*: is a file; name a folder"):
        EvaluationOutputs(pictures=file)
    with pytest.raises(InputError, match=r"--report .*: is a file; name a folder"):
        EvaluationOutputs(report=file)
