"""The JavaScript of the page and of the Node client computes what the toolkit does."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

import detect.exporting.web
from detect.boxes.array_coding import MAX_LOG_RATIO, SHORT_SIDE, decode_level
from detect.boxes.array_nms import non_max_suppression
from detect.data.letterbox import letterbox, pad_batch
from detect.exporting.onnx_runner import OnnxModel
from tests.inference.onnx_files import write_classifier, write_detections, write_onnx

SCRIPT = Path(detect.exporting.web.__file__).parent / "page" / "detector.mjs"
LETTERBOX = {
    "interpolation_smaller": "INTER_AREA",
    "interpolation_larger": "INTER_LINEAR",
    "pad_value": 114,
    "pad_to_multiple_of": 32,
}
START = """\
import { readFileSync, writeFileSync } from "node:fs";
import { Detector, readMetadata, roundHalfToEven, suppress } from "SCRIPT";
const [folder, given] = process.argv.slice(2), options = JSON.parse(given);
const detector = () => Object.assign(Object.create(Detector.prototype), options.fields);
const tell = (value) => console.log(JSON.stringify(value));
"""

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def run_script(folder: Path, script: str, **options: object) -> list[object]:
    """What the script tells with the names of ``START``."""
    program = folder / "program.mjs"
    program.write_text(START.replace("SCRIPT", SCRIPT.as_uri()) + script, encoding="utf-8")
    words = ["node", str(program), str(folder), json.dumps(options)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# Height, width, channels, image size. Shrunk: by fractions, by two, by three, in one direction, to a side that ends in
# .5 (33 * 32 / 64 is 16.5, which Python rounds to 16). The same. Enlarged: by fractions, from a row, from a pixel.
CASES = [
    *((50, 70, 3, 48), (64, 96, 4, 48), (96, 96, 3, 32), (1, 500, 3, 64), (33, 64, 3, 32), (96, 64, 4, 96)),
    *((23, 31, 3, 48), (32, 43, 4, 100), (1, 5, 3, 64), (7, 2, 3, 64), (1, 1, 3, 32)),
]


def test_pixels_are_opencvs_to_the_bit(tmp_path):
    images = [np.random.default_rng(at).integers(0, 256, case[:3], np.uint8) for at, case in enumerate(CASES)]
    for at, image in enumerate(images):
        (tmp_path / f"{at}.in").write_bytes(image.tobytes())
    script = """
    options.cases.forEach(([height, width, channels, imageSize], at) => {
      const data = readFileSync(`${folder}/${at}.in`);
      const sized = Object.assign(detector(), { imageSize });
      const { tensor, dims, scale } = sized.prepare({ data, width, height, channels });
      writeFileSync(`${folder}/${at}.out`, tensor);
      tell([dims, scale]);
    });
    """
    told = run_script(tmp_path, script, cases=CASES, fields={"preprocessing": LETTERBOX})
    for at, (image, (dims, scale)) in enumerate(zip(images, told, strict=True)):
        scaled, placement = letterbox(np.ascontiguousarray(image[..., :3]), CASES[at][3])
        expected = pad_batch([scaled], 32).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        assert (dims, scale) == ([*expected.shape], [*placement.scale_xy]), CASES[at]
        found = np.frombuffer((tmp_path / f"{at}.out").read_bytes(), np.float32).reshape(expected.shape)
        np.testing.assert_array_equal(found, expected, err_msg=str(CASES[at]))


def test_a_square_input(tmp_path):
    """A file of one fixed size pads to it: 20 x 40 px become 16 x 32, in a square of 32."""
    fields = {"preprocessing": {**LETTERBOX, "pad_to_multiple_of": None, "pad_to_square_of": 32}, "imageSize": 32}
    script = "tell(detector().prepare({ data: new Uint8Array(2400), width: 40, height: 20, channels: 3 }).dims);"
    assert run_script(tmp_path, script, fields=fields) == [[1, 3, 32, 32]]


def test_halves_are_rounded_to_the_even_number(tmp_path):
    values = [0.5, 1.5, 2.5, 2.4999999, 3.0, 0.0, 159.5, 160.5]
    assert run_script(tmp_path, "tell(options.values.map(roundHalfToEven));", values=values) == [[*map(round, values)]]


WAYS = [("square", "sigmoid"), ("exp", "sigmoid"), ("exp", "linear"), ("distances", "distances")]


def test_raw_maps_are_decoded(tmp_path):
    """Three anchors, two classes, 2 rows of 3 cells, of an input of 17 x 24 px: a cell has 8 x 8.5."""
    raw = np.random.default_rng(2).normal(0, 3, (1, 3 * 7, 2, 3)).astype(np.float32)
    raw[0, 2, 0, 0] = 30  # beyond the largest logarithm
    anchors = [[6.0, 4.0], [10.0, 12.0], [30.0, 20.0]]
    levels = [{"anchors_px": anchors, "xy_scale": 1.2, "sizes": sizes, "offsets": offsets} for sizes, offsets in WAYS]
    output = {"levels": levels, "max_log_ratio": MAX_LOG_RATIO, "short_side": SHORT_SIDE}
    script = """
    const map = { data: Float32Array.from(options.raw), dims: [1, 21, 2, 3] };
    tell([...detector().predictions(options.fields.output.levels.map(() => map), [1, 3, 17, 24])]);
    """
    (told,) = run_script(tmp_path, script, raw=raw.ravel().tolist(), fields={"output": output})
    grouped = raw.reshape(1, 3, 7, 2, 3).transpose(0, 1, 3, 4, 2)
    cell_px = (8.0, 8.5)
    expected = [decode_level(grouped, np.array(anchors, np.float32), cell_px, 1.2, *way)[0] for way in WAYS]
    np.testing.assert_allclose(np.array(told).reshape(-1, 7), np.concatenate(expected), rtol=1e-5, atol=1e-5)


def test_suppression(tmp_path):
    """Crowds of three classes, and a box without an area, which nothing suppresses; the limit cuts the worst."""
    random = np.random.default_rng(3)
    predictions = np.empty((1, 400, 8), np.float32)
    predictions[..., :2], predictions[..., 2:4] = random.uniform(0, 60, (1, 400, 2)), random.uniform(5, 30, (1, 400, 2))
    predictions[..., 4:] = random.uniform(0, 1, (1, 400, 4))
    predictions[0, :2, 2:4] = 0
    limits = [(0.25, 0.6, 300), (0.05, 0.3, 300), (0.05, 0.6, 20)]
    script = "for (const limits of options.limits) tell(suppress(Float32Array.from(options.rows), 8, ...limits));"
    told = run_script(tmp_path, script, rows=predictions.ravel().tolist(), limits=limits)
    for found, (conf, iou, count) in zip(told, limits, strict=True):
        ((boxes, scores, labels),) = non_max_suppression(predictions, conf, iou, count, multi_label=False)
        assert [one["label"] for one in found] == labels.tolist()
        np.testing.assert_allclose([one["xyxy"] for one in found], boxes, atol=1e-4)
        np.testing.assert_array_equal(np.array([one["score"] for one in found], np.float32), scores)


def test_boxes_return_to_the_image(tmp_path):
    """Rows of a file with suppression inside, of an image of 100 x 50 px, which was scaled by 0.64.

    One leaves the image and is cut, one lies outside and is left out, one is below the minimum, one behind the count.
    """
    box = [6.4, 3.2, 32.0, 16.0]
    rows = [[*box, 0.9, 2], [32, 16, 99, 99, 0.8, 0], [70, 1, 80, 9, 0.7, 1], [*box, 0.3, 1], [*box, 0.9, 1]]
    script = """
    const rows = { data: Float32Array.from(options.rows.flat()) }, counts = { data: BigInt64Array.of(4n) };
    tell(detector().found([rows, counts], [1, 3, 32, 64], [0.64, 0.64], { width: 100, height: 50 }, { conf: 0.5 }));
    """
    (told,) = run_script(tmp_path, script, rows=rows, fields={"isSuppressed": True})
    assert [one["label"] for one in told] == [2, 0]
    np.testing.assert_allclose(told[0]["xyxy"], [10, 5, 50, 25], rtol=1e-6)
    np.testing.assert_allclose(told[1]["xyxy"], [50, 25, 100, 50], rtol=1e-6)


def test_metadata(tmp_path):
    """Every entry as ONNX Runtime reads it, with characters of several bytes; a file of others is refused."""
    names = ["<b>", "人", "\u202e", "é" * 200]
    path = write_detections(tmp_path / "model.onnx", [[0, 0, 1, 1, 0.5, 0]])
    model = onnx.load(path)
    onnx.helper.set_model_props(
        model,
        {entry.key: entry.value for entry in model.metadata_props}
        | {"names": json.dumps(names, ensure_ascii=False), "preprocessing": json.dumps(LETTERBOX), "empty": ""},
    )
    onnx.save(model, path)
    write_classifier(tmp_path / "classifier.onnx")
    unknown = json.dumps(LETTERBOX | {"interpolation_larger": "INTER_CUBIC"})
    write_onnx(tmp_path / "cubic.onnx", [], {}, {}, preprocessing=unknown)
    write_onnx(tmp_path / "foreign.onnx", [], {}, {}, format="other")
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:-20])
    (tmp_path / "page.onnx").write_text("<!DOCTYPE html><p>404")
    script = """
    tell(readMetadata(readFileSync(`${folder}/model.onnx`)));
    tell(new Detector(readFileSync(`${folder}/model.onnx`)).names);
    for (const name of options.refused) {
      try {
        new Detector(readFileSync(`${folder}/${name}.onnx`));
        tell("taken");
      } catch (error) {
        tell(error.message);
      }
    }
    """
    found, taken, *lines = run_script(tmp_path, script, refused=["classifier", "cubic", "foreign", "cut", "page"])
    assert found == OnnxModel(str(path)).session.get_modelmeta().custom_metadata_map
    assert taken == names
    assert lines == [
        "is not a detector",
        "interpolation_larger: INTER_CUBIC is unknown here",
        "is not a file that detect export wrote (format detect-onnx-1)",
        "is not an ONNX file, or damaged",
        "is not an ONNX file, or damaged",
    ]
