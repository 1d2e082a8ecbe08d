"""Exported instances in a folder: hand-made files whose detections are known, and everything that can be wrong."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from detect import Detector
from detect.errors import InputError
from detect.exporting.instances import _SharedWeights
from detect.inference import timing
from detect.inference.instances import InstanceEntry, InstanceMenu
from detect.inference.runtimes import instance_files
from detect.inference.runtimes.instance_files import TABLE, InstanceFiles, InstanceTable, open_network
from detect.safety.onnx_files import DIGEST
from tests.inference.onnx_files import write_detections

IMAGE = np.zeros((64, 64, 3), np.uint8)
ENTRIES = (
    InstanceEntry("plain", 1.0, 1_000_000_000, 40.0, 0.5),
    InstanceEntry("1@0.5", 0.25, 250_000_000, 10.0, 0.3),
    InstanceEntry("2@0.5", 0.6, 600_000_000, 25.0, 0.45),
)
FILES = {entry.name: f"{entry.name}.onnx" for entry in ENTRIES}
ROWS = {"plain": 300, "1@0.5": 100, "2@0.5": 200}
"""Detections of each file: squares of 2 px."""


def rows_of(count: int) -> list[list[float]]:
    """Detections that do not overlap, in tables of one length, so that the files hold arrays of one size."""
    cells = [(2.0 * (n % 32), 2.0 * (n // 32)) for n in range(300)]
    return [[x, y, x + 2, y + 2, 0.9 if n < count else 0.0, 0] for n, (x, y) in enumerate(cells)]


def write_folder(folder: Path) -> Path:
    """Three files with their weights in a fourth, as an export writes them."""
    folder.mkdir()
    weights = _SharedWeights(folder / "weights.bin")
    models = {}
    for name, count in ROWS.items():
        path = write_detections(folder / FILES[name], rows_of(count), fixed=True)
        models[path] = onnx.load(path)
        weights.take(models[path])
    facts = {
        DIGEST: weights.close(),
        TABLE: InstanceTable(InstanceMenu(ENTRIES, "AP", "shapes val, 64 px"), FILES, 64).to_json(),
    }
    for (path, model), entry in zip(models.items(), ENTRIES, strict=True):
        known = {one.key: one.value for one in model.metadata_props}
        onnx.helper.set_model_props(model, known | facts | {"instance": entry.name, "cost": str(entry.cost)})
        onnx.save(model, path)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "slider")


def edit(path: Path, **facts: str) -> None:
    """Change entries of a file's metadata."""
    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, {one.key: one.value for one in model.metadata_props} | facts)
    onnx.save(model, path)


def edit_table(folder: Path, change: Any) -> None:
    """Change the table in all files."""
    for path in folder.glob("*.onnx"):
        properties = onnx.load(path, load_external_data=False).metadata_props
        content = json.loads(next(one.value for one in properties if one.key == TABLE))
        change(content)
        edit(path, **{TABLE: json.dumps(content)})


def test_the_cost_chooses_the_file(folder: Path) -> None:
    detector = Detector(folder, device="cpu")
    assert (detector.cost, detector.image_size, len(detector.predict(IMAGE))) == (1.0, 64, 300)
    detector.cost = 0.7
    assert (detector.cost, len(detector.predict(IMAGE))) == (0.6, 200)
    assert detector.choose(gflops=0.5).line() == (
        "instance 1@0.5: needs 0.5 GFLOPs at 64 px; AP 0.300 (shapes val, 64 px)"
    )
    assert len(detector.predict(IMAGE)) == 100
    detector.cost = 1
    assert len(detector.predict(IMAGE)) == 300


def test_a_file_of_the_folder_is_in_use_first(folder: Path) -> None:
    detector = Detector(folder / "1@0.5.onnx", device="cpu")
    assert (detector.cost, len(detector.predict(IMAGE))) == (0.25, 100)
    detector.cost = 1
    assert len(detector.predict(IMAGE)) == 300


def test_milliseconds_are_measured_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MAX_ROUNDS", 1)
    ms = {"plain": 0.03, "2@0.5": 0.02, "1@0.5": 0.01}
    monkeypatch.setattr(instance_files, "_seconds", lambda network: ms[network.instance])
    detector = Detector(folder, device="cpu")
    assert detector.choose(target_ms=25).line().startswith("instance 2@0.5: takes 20 ms here at 64 px")
    with pytest.raises(InputError, match=r"^target ms 5: no instance is within it; 1@0\.5 takes 10 ms here at 64 px$"):
        detector.choose(target_ms=5)
    assert detector.cost == 0.6


def test_what_is_timed(folder: Path) -> None:
    network = open_network(folder, "cpu")
    assert isinstance(network, InstanceFiles)
    assert instance_files._seconds(network._active) > 0


def test_a_deadline(folder: Path) -> None:
    """A table of 40 ms and 1000 ms to spare: the full network."""
    detector = Detector(folder, device="cpu")
    deadline = detector.deadline(1000)
    found = list(detector.stream([IMAGE, IMAGE], deadline=deadline))
    assert [len(frame.detections) for frame in found] == [300, 300]
    assert deadline.lines()[0] == "deadline 1000 ms: 0 of 2 frames late (0.0%)"
    for options in ({"batch_size": 2}, {"image_size": 64}):
        with pytest.raises(InputError, match=r"^deadline: frames go one by one, at their instance's size; no batch"):
            detector.stream(IMAGE, deadline=deadline, **options)


def test_weights_are_shared(folder: Path) -> None:
    """Each table of 300 rows is 7,200 bytes; the scalar and the axis stay in the files, which are small."""
    assert (folder / "weights.bin").stat().st_size == 2 * 7232 + 7200
    assert all((folder / name).stat().st_size < 4000 for name in FILES.values())


def test_arrays_are_stored_once(tmp_path: Path) -> None:
    weights = _SharedWeights(tmp_path / "weights.bin")
    models = [onnx.load(write_detections(tmp_path / f"{n}.onnx", rows_of(300))) for n in range(2)]
    for model in models:
        weights.take(model)
    digest = weights.close()
    content = (tmp_path / "weights.bin").read_bytes()
    assert len(content) == 7200
    assert digest == hashlib.sha256(content).hexdigest()


def cut(folder: Path) -> None:
    (folder / "weights.bin").write_bytes((folder / "weights.bin").read_bytes()[:-1])


def lose(folder: Path) -> None:
    (folder / "weights.bin").unlink()


def change_a_bit(folder: Path) -> None:
    content = bytearray((folder / "weights.bin").read_bytes())
    content[5] ^= 1
    (folder / "weights.bin").write_bytes(content)


def without_table(folder: Path) -> None:
    for path in folder.glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        kept = {one.key: one.value for one in model.metadata_props if one.key != TABLE}
        onnx.helper.set_model_props(model, kept)
        onnx.save(model, path)


def move(folder: Path, key: str, value: str) -> None:
    """Change the place of the large array of the full network."""
    path = folder / "plain.onnx"
    model = onnx.load(path, load_external_data=False)
    (tensor,) = [one for one in model.graph.initializer if one.external_data]
    next(entry for entry in tensor.external_data if entry.key == key).value = value
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"weights\.bin: is cut off, damaged or of another export than plain\.onnx; export the folder again$"),
        (change_a_bit, r"weights\.bin: is cut off, damaged or of another export than plain\.onnx"),
        (lose, r"weights\.bin: cannot be read \(No such file or directory\); plain\.onnx needs it$"),
        (without_table, r"slider: no \.onnx file in it has a table of instances, which detect export --instances"),
        (lambda folder: (folder / "plain.onnx").unlink(), r"plain\.onnx: cannot be read: No such file"),
        (lambda folder: move(folder, "location", "../weights.bin"), "has weights in other files; export it as one"),
        (lambda folder: move(folder, "location", "/etc/passwd"), "has weights in other files; export it as one file"),
        (lambda folder: move(folder, "offset", "999999"), "the place of its weights 'table' is damaged; export it"),
        (lambda folder: move(folder, "offset", "-4"), "the place of its weights 'table' is damaged; export it again"),
        (lambda folder: move(folder, "length", "9" * 5000), "the place of its weights 'table' is damaged"),
        (lambda folder: move(folder, "length", "8"), "ONNX Runtime cannot load it"),
        (lambda folder: edit(folder / "plain.onnx", **{DIGEST: "0"}), "is cut off, damaged or of another export"),
    ],
)
def test_damaged_folders(folder: Path, damage: Any, message: str) -> None:
    damage(folder)
    with pytest.raises(InputError, match=message):
        Detector(folder, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.pop("metric"), r"its table of instances is damaged \('metric'\); export it again"),
        (lambda table: table["entries"].clear(), "its table of instances is damaged; export it again"),
        (lambda table: table["entries"].reverse(), "its table of instances is damaged; export it again"),
        (lambda table: table["entries"].append(table["entries"][0]), "its table of instances is damaged; export it"),
        (lambda table: table["entries"][1].update(file="../1@0.5.onnx"), "its table of instances is damaged; export"),
        (lambda table: table["entries"][1].update(ms="NaN"), "its table of instances is damaged"),
        (lambda table: table["entries"][1].update(cost=0), "its table of instances is damaged"),
        (lambda table: table["entries"][1].update(macs=None), "its table of instances is damaged"),
        (lambda table: table.update(image_size=10**9), "its table of instances is damaged; export it again"),
        (lambda table: table.update(entries=7), "its table of instances is damaged"),
    ],
)
def test_damaged_tables(folder: Path, change: Any, message: str) -> None:
    edit_table(folder, change)
    with pytest.raises(InputError, match=message):
        Detector(folder, device="cpu")


def test_a_table_that_is_no_json(folder: Path) -> None:
    edit(folder / "plain.onnx", **{TABLE: "[" * 100_000})
    with pytest.raises(InputError, match="its table of instances is damaged"):
        Detector(folder / "plain.onnx", device="cpu")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"instance": "plain"}, r"1@0\.5\.onnx: is not the instance 1@0\.5 of hand-made; export the folder again"),
        ({"names": '["a", "b", "x"]'}, r"1@0\.5\.onnx: is not the instance 1@0\.5 of hand-made"),
    ],
)
def test_a_file_of_something_else(folder: Path, facts: dict[str, str], message: str) -> None:
    edit(folder / "1@0.5.onnx", **facts)
    detector = Detector(folder, device="cpu")
    with pytest.raises(InputError, match=message):
        detector.cost = 0.3
    assert (detector.cost, len(detector.predict(IMAGE))) == (1.0, 300)


def test_names_and_budgets_that_are_not_there(folder: Path) -> None:
    detector = Detector(folder, device="cpu")
    with pytest.raises(InputError, match=r"^instance 2@0\.55: is unknown; did you mean '2@0\.5'\?$"):
        detector.network.use("2@0.55")
    with pytest.raises(InputError, match=r"^cost 0\.1: no instance is within it; 1@0\.5 costs 0\.250 of the full"):
        detector.cost = 0.1
    with pytest.raises(InputError, match="slider takes 64 only, found 96"):
        detector.choose(cost=1, image_size=96)
    with pytest.raises(InputError, match="slider takes 64 only, found 96"):
        detector.predict(IMAGE, image_size=96)
    assert len(detector.predict(IMAGE, image_size=64)) == 300


def test_a_file_without_a_table_has_one_cost(tmp_path: Path) -> None:
    detector = Detector(write_detections(tmp_path / "model.onnx", rows_of(3)), device="cpu")
    with pytest.raises(InputError, match=r"the cost of an exported file is fixed; detect export --cost .* --instances"):
        detector.deadline(40)
    with pytest.raises(InputError, match="the cost of an exported file is fixed"):
        detector.network.use("plain")


def test_pytorch_is_not_needed(folder: Path, tmp_path: Path) -> None:
    """In a process of its own, since this one has it."""
    program = (
        "import sys; from detect import Detector; d = Detector(sys.argv[1], device='cpu'); d.cost = 0.3; "
        "d.deadline(50); sys.exit(int('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
