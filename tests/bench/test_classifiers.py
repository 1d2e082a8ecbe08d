"""Classifiers: their accuracy, their stages, and what does not go together.

``write_classifier`` answers with the brightest of red, green and blue, as classes a, b and c.
"""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest

from detect.api.evaluation import measure
from detect.api.evaluation_request import EvaluationRequest
from detect.bench.files import BenchFile
from detect.bench.pipeline import ClassificationPipeline, open_pipeline
from detect.bench.run import BenchRequest, run_bench
from detect.bench.tasks import ClassificationTask
from detect.data.images import write_image
from detect.data.recognition import open_data
from detect.errors import InputError
from tests.data.cifar_files import binary10, write_folder
from tests.inference.onnx_files import write_classifier, write_detections

COLORS = {"a": (200, 0, 0), "b": (0, 200, 0), "c": (0, 0, 200)}


@pytest.fixture
def classifier(tmp_path):
    return write_classifier(tmp_path / "c.onnx")


def write_data(folder, colors=COLORS):
    """Two images of one colour for each class, a wide one and a square one."""
    for name, color in colors.items():
        (folder / "val" / name).mkdir(parents=True)
        for number, width in enumerate((96, 64)):
            write_image(folder / "val" / name / f"{number}.png", np.full((64, width, 3), color, np.uint8))
    return write_config(folder, "format: folders\nsplits: {val: {images: val}}")


def write_config(folder, text):
    (folder / "data.yaml").write_text(f"name: d\nroot: .\n{text}\n")
    return str(folder / "data.yaml")


def test_a_run(tmp_path, classifier):
    """Red, green and blue images of classes a, b and c, but two of c are green: 4 of 6 are right."""
    data = write_data(tmp_path, {**COLORS, "c": (0, 200, 0)})
    request = BenchRequest([str(classifier)], data, batch=(2,), images=4, out=tmp_path / "out")
    lines = list(run_bench(request))
    assert lines[1].endswith("times on 4 of them, in turn, milliseconds of the wall for an image (stages: p50); "
                             "until the classes' probabilities")  # fmt: skip
    head, _, row = lines[3].splitlines()
    assert head.split()[:8] == ["file", "top1", "top5", "MB", "batch", "decode", "crop", "network"]
    assert head.split()[8:11] == ["p50", "p95", "p99"]
    assert row.split()[1:5] == ["0.667", "1.000", "0.00", "2"]
    (found,) = csv.DictReader((tmp_path / "out" / "bench.csv").read_text().splitlines())
    assert (found["top1"], found["top5"], found["images"]) == ("0.6667", "1.0000", "4")
    assert float(found["crop_p99_ms"]) > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"bench.txt", "bench.csv", "bench.png"}


def test_accuracy_is_that_of_val(tmp_path, classifier):
    """Of the same file; red images are taken for those of class b as well, so that not all are right."""
    data = write_data(tmp_path, {**COLORS, "b": COLORS["a"]})
    places = {"metrics_json": tmp_path / "m.json", "out": tmp_path / "out"}
    lines = list(measure(EvaluationRequest(classifier, data, workers=0, batch_size=3, **places)))
    assert lines[0].splitlines()[1].split()[:2] == ["top1", "0.667"]
    record = json.loads((tmp_path / "m.json").read_text())
    found = ClassificationTask.open(open_data(data), "val").accuracy(BenchFile("c", classifier))
    assert found == {"top1": record["top1"], "top5": record["top5"]}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"confusion_matrix.png", "confused_pairs.jpg"}


def test_a_batch_goes_through_the_network_at_once(tmp_path, classifier):
    """The middle square of each image, whatever its shape."""
    pipeline = open_pipeline(str(classifier), False, ())
    assert isinstance(pipeline, ClassificationPipeline)
    seen, run = [], pipeline.network.probabilities

    def probabilities(images):
        seen.append(images)
        return run(images)

    pipeline.network.probabilities = probabilities
    task = ClassificationTask.open(open_data(write_data(tmp_path)), "val")
    seconds = pipeline.time_batch(task.image_paths(3))
    assert len(seconds) == len(pipeline.stages)
    assert min(seconds) > 0
    (batch,) = seen
    assert batch.shape == (3, 64, 64, 3)
    # Of six images, two of each class, every second one is timed.
    assert batch[:, 32, 32].tolist() == [list(color) for color in COLORS.values()]


def test_deep_images_are_read_as_the_network_was_trained(tmp_path):
    """Values 100 and 200 of 16 bits: with a range of 0 to 50 both are 255, and the first class is the answer."""
    write_data(tmp_path, {"a": COLORS["a"], "b": COLORS["b"]})
    image = np.full((64, 64, 3), 100, np.uint16)
    image[..., 1] = 200
    for number in range(2):
        cv2.imwrite(str(tmp_path / "val" / "b" / f"{number}.png"), image)
    data = write_config(tmp_path, "format: folders\nrange: [0, 400]\nsplits: {val: {images: val}}")
    task = ClassificationTask.open(open_data(data), "val")
    found = [
        task.accuracy(BenchFile("m", write_classifier(tmp_path / f"{number}.onnx", value_range)))["top1"]
        for number, value_range in enumerate((None, (0, 50)))
    ]
    assert found == [1, 0.5]


@pytest.mark.parametrize(
    ("weights", "compare", "message"),
    [
        (["c.onnx", "d.onnx"], [], r"^--weights: \S*c.onnx is a classifier, \S*d.onnx a detector; measure them apart$"),
        (["d.onnx", "c.onnx"], [], r"^--weights: \S*c.onnx is a classifier, \S*d.onnx a detector; measure them apart$"),
        (["c.onnx"], ["d.onnx"], r"^--compare: is for detectors; \S*c.onnx is a classifier$"),
        (["d.onnx"], [], "d: format folders is for classification, but the model is a detector"),
    ],
)
def test_what_does_not_go_together(tmp_path, classifier, weights, compare, message):
    write_detections(tmp_path / "d.onnx", [[8, 8, 24, 24, 0.9, 1]])
    paths = [[str(tmp_path / name) for name in names] for names in (weights, compare)]
    request = BenchRequest(paths[0], write_data(tmp_path), compare=paths[1], out=tmp_path / "out")
    with pytest.raises(InputError, match=message):
        list(run_bench(request))
    assert not (tmp_path / "out").exists()


def test_images_in_an_archive_are_refused(tmp_path, classifier):
    write_folder(tmp_path / "cifar", binary10())
    data = write_config(tmp_path, "format: cifar\nsplits: {val: {images: cifar, annotations: test}}")
    with pytest.raises(InputError, match="its images are not files, whose decoding is measured; take image folders"):
        list(run_bench(BenchRequest([str(classifier)], data)))
