"""Times and their percentiles, processes, and the files that are measured."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest

from detect.bench import process
from detect.bench.files import BenchFile, find_files
from detect.bench.measure import Measured, Timing, _chunks, measure_times
from detect.bench.pipeline import DetectionPipeline, open_pipeline
from detect.bench.run import BenchRequest, bench_table, run_bench
from detect.data.images import write_image
from detect.errors import InputError
from tests.inference.onnx_files import write_detections

ROWS = [[8, 8, 24, 24, 0.9, 1], [0, 0, 8, 8, 0.5, 0]]


@pytest.fixture
def images(tmp_path):
    """Three files of two shapes."""
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, shape in zip(paths, ((32, 64), (64, 64), (32, 64)), strict=True):
        write_image(path, np.full((*shape, 3), 90, np.uint8))
    return [str(path) for path in paths]


def test_percentiles():
    """Two batches of two images: 2, 4, 6 and 8 ms, and twice that; halves of them are an image's."""
    timing = Timing(
        2, DetectionPipeline.stages, [[0.002, 0.004, 0.006, 0.008], [0.004, 0.008, 0.012, 0.016]], cpu_s=0.1
    )
    assert timing.images == 4
    assert timing.cpu_ms == pytest.approx(25)
    assert timing.images_per_s == pytest.approx(4 / 0.06)
    times = timing.percentiles_ms()
    assert times["decode"] == pytest.approx([1.5, 1.95, 1.99])
    assert times["all"] == pytest.approx([15, 19.5, 19.9])


def test_faster_than_the_first_file_at_the_same_batch_size(tmp_path):
    """Of a batch 4 and 6 ms, then 2 and 12: twice and half as fast."""
    stages, (first, second) = DetectionPipeline.stages, (tmp_path / "a.onnx", tmp_path / "b.onnx")
    measured = []
    for path, cpu_s in ((first, (0.004, 0.006)), (second, (0.002, 0.012))):
        path.touch()
        timings = [Timing(batch, stages, [[0.001] * 4], cpu) for batch, cpu in zip((1, 2), cpu_s, strict=True)]
        measured.append(Measured(BenchFile(path.name, path), {"AP": 0.5}, timings))
    head, _, *lines = (line.split() for line in bench_table(measured).splitlines())
    assert head[-3:] == ["faster", "peak", "MiB"]
    assert [line[-2] for line in lines] == ["1.00", "1.00", "2.00", "0.50"]


def test_chunks_are_whole_batches():
    assert _chunks("abcdefghij", 4) == ["abcdefgh"]  # two batches of four; two images are left
    assert _chunks("abcdefghij", 1) == ["abcdefgh", "ij"]
    assert _chunks("abcdefghijklmnopqrstuvwxyz", 12) == ["abcdefghijkl", "mnopqrstuvwx"]


def serve(monkeypatch, capsys, *lines):
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in lines)))
    monkeypatch.setattr(process, "use_threads", lambda count: None)
    process.main()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_process_answers_each_line(tmp_path, images, monkeypatch, capsys):
    weights = str(write_detections(tmp_path / "m.onnx", ROWS))
    first = {"weights": weights, "is_foreign": False, "names": [], "threads": 1}
    opened, one, all_three = serve(
        monkeypatch, capsys, first, {"batch": 1, "images": images}, {"batch": 3, "images": images}
    )
    assert opened == {"name": "hand-made", "stages": ["decode", "letterbox", "network", "suppression"]}
    assert np.shape(one["seconds"]) == (3, 4)
    assert np.shape(all_three["seconds"]) == (1, 4)
    assert np.min(one["seconds"]) > 0
    assert all_three["peak_bytes"] >= one["peak_bytes"] > 10 * 2**20


def test_images_of_one_shape_go_through_the_network_together(tmp_path, images):
    pipeline = open_pipeline(str(write_detections(tmp_path / "m.onnx", ROWS)), False, ())
    assert isinstance(pipeline, DetectionPipeline)
    seen, run = [], pipeline.network.predictions

    def predictions(batch):
        seen.append(batch.shape)
        return run(batch)

    pipeline.network.predictions = predictions
    pipeline.time_batch(images)
    assert sorted(seen) == [(1, 64, 64, 3), (2, 32, 64, 3)]


def test_a_process_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    first = {"weights": str(tmp_path / "m.onnx"), "is_foreign": False, "names": [], "threads": 1}
    (answer,) = serve(monkeypatch, capsys, first)
    assert answer["error"].endswith("m.onnx: is not an ONNX file, or is damaged")


def test_fresh_processes_in_turn(tmp_path, images):
    """Memory is of the process itself: this one, which starts it, has PyTorch, that one has not."""
    file = BenchFile("m", write_detections(tmp_path / "m.onnx", ROWS))
    ((one, two),) = measure_times([file], images, (1, 2), ("a",), threads=1)
    assert (one.images, two.images) == (3, 2)
    assert 0 < one.peak_bytes <= two.peak_bytes < process.peak_bytes()


def test_a_file_that_cannot_be_opened_ends_the_run(tmp_path, images):
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"m.onnx: is not an ONNX file, or is damaged"):
        measure_times([BenchFile("m", tmp_path / "m.onnx")], images, (1,), (), threads=1)


def test_files(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"12345")
    shipped, own, other = find_files(["yolov5n-spd-bccd", str(tmp_path / "m.onnx")], [__file__])
    assert shipped.path.name == "yolov5n-spd-bccd.pt"
    assert (own.num_bytes, own.is_foreign, other.is_foreign) == (5, False, True)
    with pytest.raises(InputError, match=r"none.onnx: is neither a file nor one of weights/"):
        find_files(["none.onnx"], [])
    with pytest.raises(InputError, match=r"m.onnx: is named twice"):
        find_files([str(tmp_path / "m.onnx")], [str(tmp_path / "m.onnx")])


def write_data(folder, count, boxes=True):
    """A COCO data set: one object of class b in each image, where ``ROWS`` has it."""
    (folder / "images").mkdir()
    names = [f"{number}.png" for number in range(count)]
    for name in names:
        write_image(folder / "images" / name, np.full((64, 64, 3), 90, np.uint8))
    content = {
        "images": [{"id": i, "file_name": name, "width": 64, "height": 64} for i, name in enumerate(names)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 2, "bbox": [8, 8, 16, 16], "area": 256, "iscrowd": 0}
            for i in range(count)
            if boxes
        ],
    }
    (folder / "val.json").write_text(json.dumps(content))
    config = folder / "data.yaml"
    config.write_text("name: d\nroot: .\nformat: coco\nsplits: {val: {images: images, annotations: val.json}}\n")
    return str(config)


def test_a_run(tmp_path, capsys):
    """Accuracy and speed of the same file. AP is 1: the object is found; class a is in no image."""
    weights = str(write_detections(tmp_path / "m.onnx", ROWS))
    request = BenchRequest([weights], write_data(tmp_path, 3), batch=(2, 1), images=2, out=tmp_path / "out")
    lines = list(run_bench(request))
    assert "accuracy on 3 images, times on 2 of them" in lines[1]
    head, _, one, two = lines[3].splitlines()
    assert head.split()[:6] == ["file", "AP", "AP50", "AP_S", "MB", "batch"]
    assert [line.split()[1:6:4] for line in (one, two)] == [["1.000", "1"], ["1.000", "2"]]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"bench.txt", "bench.csv", "bench.png"}
    rows = [line.split(",") for line in (tmp_path / "out" / "bench.csv").read_text().splitlines()]
    assert [row[5:7] for row in rows] == [["batch", "images"], ["1", "2"], ["2", "2"]]


@pytest.mark.parametrize(
    ("request_of", "message"),
    [
        (lambda data, weights: BenchRequest([], data), "--weights or --compare must name a file"),
        (lambda data, weights: BenchRequest([weights], data, batch=(1, 8)), "--batch 8: the split has 2 images only"),
        (lambda data, weights: BenchRequest([weights], data, split="test"), "test"),
    ],
)
def test_refused(tmp_path, request_of, message):
    weights, data = str(write_detections(tmp_path / "m.onnx", ROWS)), write_data(tmp_path, 2)
    with pytest.raises(InputError, match=message):
        list(run_bench(request_of(data, weights)))


def test_nothing_to_measure_is_refused(tmp_path):
    weights, data = str(write_detections(tmp_path / "m.onnx", ROWS)), write_data(tmp_path, 2, boxes=False)
    with pytest.raises(InputError, match="--split val: has no objects"):
        list(run_bench(BenchRequest([weights], data, batch=(1,))))
