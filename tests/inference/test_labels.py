"""Label files of predictions come back through the readers of their formats."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from detect.data.formats.voc import read_xml
from detect.inference.inputs import Source
from detect.inference.outputs import OutputOptions, PredictionWriter
from detect.inference.rows import LABEL_PLACES
from detect.inference.video import Clip
from tests.data.formats.tool_folders import boxes_of, tables_of
from tests.inference.samples import FOUND, IMAGE, make_detections, seen, seen_frame, still

FOUND_BOXES = [
    (name, [round(side, 2) for side in box])
    for name, box in zip(FOUND.class_names, FOUND.boxes_xyxy_px.tolist(), strict=True)
]
LAYOUTS = {
    "coco": "splits: {train: {images: images, annotations: out/coco.json}}",
    "yolo": "splits: {train: {images: images, annotations: out/labels}}\nnames: [cat, dog, cow]",
    "voc": "splits: {train: {images: images, annotations: out/voc}}",
    "cvat": "splits: {train: {images: images, annotations: out/cvat.xml}}",
    "label-studio": "splits: {train: {images: images, annotations: out/label-studio.json}}",
}


def photos(folder: Path) -> list[Path]:
    """Two images of the size of the detections, one of them in a folder below."""
    paths = [folder / "images" / name for name in ("a.png", "deep/b.png")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), IMAGE)
    return paths


def predict_into(folder: Path, paths: list[Path], options: OutputOptions) -> list[str]:
    with PredictionWriter(folder, [still(path) for path in paths], options) as writer:
        writer.add(seen(str(paths[0])))
        writer.add(seen(str(paths[1]), make_detections([])))
    return writer.summary()


@pytest.mark.parametrize("form", LABEL_PLACES)
@pytest.mark.parametrize("scores", [False, True])
def test_read_back(tmp_path: Path, form: str, scores: bool) -> None:
    lines = predict_into(tmp_path / "out", photos(tmp_path), OutputOptions(labels=form, txt=scores, model="m"))
    assert f"labels: {tmp_path / 'out' / LABEL_PLACES[form][0].rstrip('/')}" in lines
    names = "" if form == "yolo" else f"names: {json.dumps(FOUND.names)}\n"
    (tmp_path / "data.yaml").write_text(
        f"name: x\nroot: .\n{LAYOUTS[form]}\n{names}".replace("[cat, dog, cow]", json.dumps(FOUND.names))
    )
    config, tables = tables_of(tmp_path)
    assert config.format == form
    assert boxes_of(tables["train"], digits=2) == {"a.png": FOUND_BOXES, "b.png": []}


def test_scores_of_yolo_rows_are_optional(tmp_path: Path) -> None:
    paths = photos(tmp_path)
    for scores, words in ((False, 5), (True, 6)):
        predict_into(tmp_path / f"{scores}", paths, OutputOptions(labels="yolo", txt=scores))
        rows = (tmp_path / f"{scores}" / "labels/a.txt").read_text().splitlines()
        assert {len(row.split()) for row in rows} == {words}
        assert (tmp_path / f"{scores}" / "classes.txt").read_text().split() == list(FOUND.names)


def test_scores_and_model(tmp_path: Path) -> None:
    paths, scores = photos(tmp_path), FOUND.scores.astype(float).round(5).tolist()
    for form in ("coco", "label-studio"):
        predict_into(tmp_path / form, paths, OutputOptions(labels=form, model="runs/mine/best.pt"))
    coco = json.loads((tmp_path / "coco/coco.json").read_text())
    assert [one["score"] for one in coco["annotations"]] == scores
    assert [one["file_name"] for one in coco["images"]] == ["a.png", "deep/b.png"]
    tasks = json.loads((tmp_path / "label-studio/label-studio.json").read_text())
    assert [one["score"] for one in tasks[0]["predictions"][0]["result"]] == scores
    assert tasks[1]["data"]["image"] == "/data/local-files/?d=deep/b.png"
    assert tasks[1]["predictions"][0]["model_version"] == "runs/mine/best.pt"


def test_frames_are_images_of_their_numbers(tmp_path: Path) -> None:
    sources = [Source("a.mp4", "file", Path("a.mp4"))]
    options = OutputOptions(labels="coco", frames=True)
    with PredictionWriter(tmp_path / "out", sources, options) as writer:
        writer.add(replace(seen_frame("a.mp4", 3), clip=Clip(10.0, 4, is_live=False)))
    content = json.loads((tmp_path / "out/coco.json").read_text())
    (name,) = (one["file_name"] for one in content["images"])
    assert (tmp_path / "out/frames" / name).is_file()


def test_what_was_seen_is_written_when_a_run_ends_early(tmp_path: Path) -> None:
    paths = photos(tmp_path)

    def interrupted() -> None:
        with PredictionWriter(
            tmp_path / "out", [still(path) for path in paths], OutputOptions(labels="coco")
        ) as writer:
            writer.add(seen(str(paths[0])))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(json.loads((tmp_path / "out/coco.json").read_text())["images"]) == 1


@pytest.mark.parametrize("form", LABEL_PLACES)
def test_names_of_any_characters(tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "images" / "a\x1b\udcff.png"
    found = replace(FOUND, names=("a\nb\udcff", "<c>"))
    with PredictionWriter(tmp_path / "out", [still(path)], OutputOptions(labels=form)) as writer:
        writer.add(seen(str(path), found))
    name = {"voc": "*.xml", "yolo": "*.txt"}.get(form, LABEL_PLACES[form][0])
    (file,) = (tmp_path / "out" / LABEL_PLACES[form][0]).glob(name) if "*" in name else [tmp_path / "out" / name]
    text = file.read_text(encoding="utf-8")
    if form in ("voc", "cvat"):
        assert "a_b_" in [element.text for element in read_xml(file).iter("name")]
    elif form == "yolo":
        assert (tmp_path / "out/classes.txt").read_text().splitlines() == ["a_b_", "<c>"]
    else:
        assert r"a\nb\udcff" in text
    assert ("class names that the format cannot hold" in caplog.text) == (form in ("voc", "cvat", "yolo"))
