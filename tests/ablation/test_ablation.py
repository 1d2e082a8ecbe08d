"""Comparisons: the plan, the trainings as processes, the table."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detect.ablation.curves import mean_curve, read_results
from detect.ablation.plan import Training, plan_trainings
from detect.ablation.report import draw_rows, read_runs, rows_of, table_lines, write_outputs
from detect.ablation.running import LOG, RECORD, Comparison, read_record
from detect.ablation.timing import forward_ms
from detect.config.ablation import AblationConfig, load_ablation_config
from detect.errors import InputError
from detect.models.build import build_model
from detect.models.checkpoint import save_checkpoint
from detect.runtime.trainings import Trainings

TEXT = """\
name: small
base: {model: yolov5n-spd, data: shapes, epochs: 1}
cases:
  scratch: {weights: none}
  slow: {weights: none, optimizer.lr: 0.001}
vary:
  train_images: [8, 16]
seeds: [0, 1]
metrics: [AP, AP_S]
x: train_images
"""
TRAINER = '''\
"""Takes the words of detect train and leaves what it leaves; AP is a hundredth of the images, plus one of the seed."""

import json
import sys
from dataclasses import replace
from pathlib import Path

words = sys.argv[1:]
out = Path(words[words.index("--out") + 1])
with (out / "starts").open("a") as starts:
    starts.write(json.dumps(words) + "\\n")
if "--resume" not in words and (out.parent / "fail").exists():
    (out / "last.pt").touch()
    sys.exit("error: the loss is not finite")
keys = dict(word.split("=") for word in words[words.index("--set") + 1 :]) if "--set" in words else {}
(out / "best.pt").write_bytes((out.parent / "best.pt").read_bytes())
(out / "results.csv").write_text("epoch,compute/full_gmacs,val/AP\\n1,0.25,0.5\\n")
'''


@pytest.fixture
def config(tmp_path: Path) -> AblationConfig:
    (tmp_path / "small.yaml").write_text(TEXT)
    return load_ablation_config(str(tmp_path / "small.yaml"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Folder with a checkpoint that the trainer copies."""
    folder = tmp_path / "out"
    folder.mkdir()
    save_model(folder / "best.pt", image_size=64)
    return folder


def save_model(path: Path, image_size: int) -> None:
    save_checkpoint(
        path,
        build_model("yolov5n-spd+width=0.125", 2),
        names=("a", "b"),
        category_ids=(1, 2),
        image_size=image_size,
        metrics={"AP": 0.5, "AP_S": 0.25},
        provenance={},
    )


def comparison(trainings: list[Training], tmp_path: Path) -> Comparison:
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    return Comparison(trainings, "cpu", Trainings((sys.executable, str(script))), lambda: None)


def starts(training: Training) -> list[list[str]]:
    return [json.loads(line) for line in (training.folder / "starts").read_text().splitlines()]


def test_every_case_with_every_value_and_seed(config: AblationConfig, out: Path) -> None:
    trainings = plan_trainings(config, out)  # seeds: 0, 1
    assert [(t.case.title, t.seed) for t in trainings[:4]] == [
        ("scratch, train_images 8", 0),
        ("scratch, train_images 16", 0),
        ("slow, train_images 8", 0),
        ("slow, train_images 16", 0),
    ]
    assert [t.seed for t in trainings] == [0] * 4 + [1] * 4
    assert len({t.folder for t in trainings}) == 8
    words = trainings[2].arguments("cpu")
    assert words[: words.index("--set")] == [
        *("--model", "yolov5n-spd", "--data", "shapes", "--weights", "none"),
        *("--seed", "0", "--out", str(out / "slow-train_images-8-seed0"), "--device", "cpu"),
    ]
    assert words[words.index("--set") + 1 :] == ["epochs=1", "optimizer.lr=0.001", "train_images=8"]


def test_trained_once_and_tabulated(config: AblationConfig, out: Path, tmp_path: Path) -> None:
    trainings = plan_trainings(config, out)
    comparison(trainings, tmp_path).run(jobs=2)
    comparison(trainings, tmp_path).run(jobs=2)  # nothing is left
    assert [len(starts(training)) for training in trainings] == [1] * 8
    text = list(write_outputs(config, trainings, out))
    for name in ("picture.png", "curves.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
    rows = list(csv.DictReader((out / "runs.csv").read_text().splitlines()))
    assert [(row["case"], row["seed"], row["AP"], row["gmacs"]) for row in rows[::4]] == [
        ("scratch, train_images 8", "0", "0.5000", "0.2500"),
        ("scratch, train_images 8", "1", "0.5000", "0.2500"),
    ]
    assert rows[0]["ms"] == rows[4]["ms"]  # of the case, not of the seed
    assert all(float(row["ms"]) > 0 for row in rows)
    table = (out / "table.md").read_text().splitlines()
    assert table[0] == "| case | AP | AP_S | seeds | parameters | GMACs | ms | CPU s |"
    assert len(table) == 6
    assert table[2].startswith("| scratch, train_images 8 | 0.500 ± 0.000 | 0.250 ± 0.000 | 2 |")
    assert text[-1].endswith("a folder for each training")


def test_weights_of_the_seed(tmp_path: Path, out: Path) -> None:
    (tmp_path / "small.yaml").write_text(
        TEXT.replace("slow: {weights: none,", 'slow: {weights: "{out}/../classifiers/plain-seed{seed}.pt",')
    )
    config = load_ablation_config(str(tmp_path / "small.yaml"))
    folder = out.parent / "classifiers"
    folder.mkdir()
    (folder / "plain-seed0.pt").touch()
    with pytest.raises(InputError, match=r"slow, train_images 8: weights .*classifiers/plain-seed1\.pt: no such file"):
        plan_trainings(config, out)
    (folder / "plain-seed1.pt").touch()
    words = [training.arguments("cpu") for training in plan_trainings(config, out)]
    assert [w[w.index("--weights") + 1] for w in words] == [
        *("none", "none", *[f"{folder}/plain-seed0.pt"] * 2),
        *("none", "none", *[f"{folder}/plain-seed1.pt"] * 2),
    ]


def test_curves_are_means_over_the_seeds_of_the_epochs_that_all_have(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("epoch,train/top1,val/top1\n1,0.2,\n2,0.4,0.3\n3,0.5,\n")
    (tmp_path / "two.csv").write_text("epoch,train/top1,val/top1\n1,0.4,\n2,0.6,0.5\n")
    runs = [read_results(tmp_path / name) for name in ("one.csv", "two.csv")]
    assert mean_curve(runs, "train/top1") == pytest.approx({1: 0.3, 2: 0.5})
    assert mean_curve(runs, "val/top1") == pytest.approx({2: 0.4})
    assert mean_curve(runs, "val/top5") == {}
    (tmp_path / "two.csv").write_text("epoch,train/top1\n1,much\n")
    with pytest.raises(InputError, match=r"two\.csv: is damaged"):
        read_results(tmp_path / "two.csv")


def test_a_failed_training_is_told_and_goes_on_the_next_time(
    config: AblationConfig, out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detect.ablation.running.LOGGER.propagate", True)
    (out / "fail").touch()
    trainings = plan_trainings(config, out)[:1]
    assert comparison(trainings, tmp_path).run(jobs=1) == {trainings[0].folder: "the loss is not finite"}
    assert "the loss is not finite" in caplog.text
    assert (trainings[0].folder / LOG).read_text() == "error: the loss is not finite\n"
    with pytest.raises(InputError, match="no training was finished"):
        list(write_outputs(config, trainings, out))
    assert comparison(trainings, tmp_path).run(jobs=1) == {}
    assert starts(trainings[0])[1] == ["--out", str(trainings[0].folder), "--device", "cpu", "--resume"]
    record = read_record(trainings[0])
    assert record is not None
    assert record.is_done
    assert record.cpu_seconds > 0


def test_a_folder_of_other_settings_is_refused(config: AblationConfig, out: Path, tmp_path: Path) -> None:
    trainings = plan_trainings(config, out)[:1]
    comparison(trainings, tmp_path).run(jobs=1)
    changed = [
        training._replace(case=training.case._replace(keys={**training.case.keys, "epochs": 2}))
        for training in trainings
    ]
    with pytest.raises(
        InputError, match="scratch-train_images-8-seed0: was trained with other settings; another --out"
    ):
        comparison(changed, tmp_path).run(jobs=1)
    (trainings[0].folder / RECORD).write_text("{")
    with pytest.raises(InputError, match=r"ablation\.json: is damaged"):
        comparison(trainings, tmp_path).run(jobs=1)


def test_mean_and_deviation_over_the_seeds(config: AblationConfig, out: Path, tmp_path: Path) -> None:
    trainings = [t for t in plan_trainings(config, out) if t.case.title == "scratch, train_images 8"]
    comparison(trainings, tmp_path).run(jobs=1)
    first, second = read_runs(trainings, config.metrics)
    runs = [first._replace(metrics={"AP": 0.4, "AP_S": 0.1}), second._replace(metrics={"AP": 0.6, "AP_S": 0.1})]
    (row,) = rows_of(runs)
    # sample deviation of 0.4 and 0.6: sqrt(2 * 0.1 ** 2 / 1)
    assert table_lines([row], config)[1][:4] == ["scratch, train_images 8", "0.500 ± 0.141", "0.100 ± 0.000", "2"]
    draw_rows(out / "picture.png", [row], replace(config, x="ms"))
    assert (out / "picture.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="has no metric top1; it has AP, AP_S"):
        read_runs(trainings, ["top1"])


def test_forward_passes_are_timed_in_the_order_of_the_checkpoints(tmp_path: Path) -> None:
    paths = [tmp_path / f"{size}.pt" for size in (64, 320)]
    for path in paths:
        save_model(path, int(path.stem))
    threads = torch.get_num_threads()
    small, large = forward_ms(paths)
    assert large > 2 * small > 0  # 25 times the pixels
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "slow: {weights: none, optimizer.lr",
            "slow: {weights: none, optimizer.lrs",
            "slow, train_images 8: .*optimizer.lrs: unknown key; did you mean 'lr'",
        ),
        ("train_images: [8, 16]", "train_images: [-8, 16]", "train_images -8: .*-8 is below 0"),
        ("model: yolov5n-spd", "model: yolov5n-spt", "'yolov5n-spt'"),
        ("[AP, AP_S]", "[]", "metrics: is empty"),
        ("seeds: [0, 1]", "seeds: [1, 1]", "seeds: one is a duplicate"),
        ("x: train_images", "x: images", "x: 'images' is not allowed; allowed: gmacs, ms, seconds, train_images"),
        (
            "{weights: none, optimizer.lr",
            "{train_images: 4, optimizer.lr",
            "cases.slow.train_images: is in vary as well",
        ),
    ],
)
def test_mistakes(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in TEXT
    path = tmp_path / "small.yaml"
    path.write_text(TEXT.replace(before, after))
    with pytest.raises(InputError, match=message):
        plan_trainings(load_ablation_config(str(path)), tmp_path / "out")


def test_a_folder_that_is_not_the_generated_data_set(config: AblationConfig, out: Path, tmp_path: Path) -> None:
    """It is refused before the first training, each of which would fail; a folder that does not exist is filled."""
    (tmp_path / "photos").mkdir()
    elsewhere = replace(config, base={**config.base, "data_root": str(tmp_path / "photos")})
    message = r"shapes: .*photos is not this data set, which is generated \(it has no annotations/train\.json\); leave"
    with pytest.raises(InputError, match=message):
        plan_trainings(elsewhere, out)
    assert len(plan_trainings(replace(config, base={**config.base, "data_root": str(tmp_path / "new")}), out)) == 8
    for split in ("train", "val", "test"):
        path = tmp_path / "photos" / "annotations" / f"{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert len(plan_trainings(elsewhere, out)) == 8


def test_cases_with_one_folder_are_refused(config: AblationConfig, out: Path) -> None:
    twins = AblationConfig("small", config.base, {"a b": {"epochs": 1}, "a/b": {"epochs": 2}})
    with pytest.raises(InputError, match="two cases have the folder a-b"):
        plan_trainings(twins, out)
