from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from detect.class_names import class_indices
from detect.errors import InputError
from detect.structures import ClassTargets, Detection, Targets
from tests.inference.samples import make_detections

ROWS = [(1, 50, 40, 120, 90, 0.875), (0, 1.5, 2, 11.5, 22, 0.75), (1, 0, 0, 200, 100, 0.25)]
"""dog, cat, dog, best first, in an image of 100 x 200 pixels; all numbers are exact in float32."""


def found(rows=ROWS, **changes):
    return dataclasses.replace(make_detections(rows), **changes)


def test_nothing_found():
    nothing = found([])
    assert (len(nothing), list(nothing), nothing.class_names) == (0, [], [])
    assert len(nothing.filter(["cat"], 0.5)) == len(nothing[:3]) == 0
    assert nothing.to_coco(1, (1, 2)) == []
    with pytest.raises(IndexError):
        nothing[0]


def test_a_sequence_of_records():
    cat = Detection((1.5, 2.0, 11.5, 22.0), 0.75, 0, "cat")
    assert found()[1] == found()[-2] == cat
    assert [(one.name, one.score) for one in found()] == [("dog", 0.875), ("cat", 0.75), ("dog", 0.25)]
    assert [type(value) for value in (*cat.box_xyxy_px, found()[1].score, found()[1].label)] == [float] * 5 + [int]
    assert list(found()[1:]) == list(found())[1:]
    assert list(found()[::-1]) == list(found())[::-1]


def test_tracks_go_along():
    tracked = found(track_ids=np.array([7, -1, 3]))
    assert [one.track_id for one in tracked] == [7, None, 3]
    assert [one.caption for one in tracked] == ["#7 dog 0.88", "cat 0.75", "#3 dog 0.25"]
    assert tracked.filter(["dog"]).track_ids.tolist() == [7, 3]


def test_filter() -> None:
    for options, kept in [
        ({}, [0, 1, 2]),
        ({"classes": ["cat"]}, [1]),
        ({"classes": [1]}, [0, 2]),
        ({"classes": ["dog", 0]}, [0, 1, 2]),
        ({"classes": []}, []),
        ({"min_score": 0.75}, [0, 1]),  # at least, not above
        ({"classes": ["dog"], "min_score": 0.5}, [0]),
        ({"min_score": 1}, []),
    ]:
        assert list(found().filter(**options)) == [found()[index] for index in kept]


def test_filter_refuses() -> None:
    for options, message in [
        ({"classes": ["dgo"]}, "classes: unknown class 'dgo'; did you mean 'dog'"),
        ({"classes": "dog"}, r"classes: must be a list, such as \['dog'\]"),
        ({"classes": [2]}, "classes: there is no class 2; allowed: 0 to 1"),
        ({"min_score": 25}, "min_score: must be from 0 to 1, found 25"),
        ({"min_score": float("nan")}, "min_score: must be from 0 to 1, found nan"),
    ]:
        with pytest.raises(InputError, match=message):
            found().filter(**options)


def test_classes_by_name_or_index():
    assert class_indices(None, ("cat", "1")) is None
    assert class_indices(["1", "0", 1], ("cat", "1")) == (1, 0)  # a name goes before a number; each once


def test_plot_takes_what_was_looked_at():
    image = np.full((100, 200, 3), 128, np.uint8)
    drawn = found().plot(image)
    assert (image == 128).all()
    assert (drawn != 128).any()
    np.testing.assert_array_equal(found().plot(Image.fromarray(image)), drawn)


def test_plot_refuses_another_image() -> None:
    for image, shown in [
        (np.zeros((200, 100, 3), np.uint8), r"found \(200, 100, 3\) uint8"),
        (np.zeros((100, 200, 3), np.float32), r"found \(100, 200, 3\) float32"),
        (Image.new("L", (200, 100)), r"found \(100, 200\) uint8"),
        ("photo.jpg", r"found \(\) <U9"),
    ]:
        with pytest.raises(InputError, match=r"plot: needs the image .* \(100, 200, 3\) uint8 RGB; " + shown):
            found().plot(image)


def test_coco_results_are_read_by_pycocotools():
    entries = found().to_coco(7, (3, 90))
    # 50..120 x 40..90 is 70 wide and 50 high; dog is the second category.
    assert entries[0] == {"image_id": 7, "category_id": 90, "bbox": [50.0, 40.0, 70.0, 50.0], "score": 0.875}
    assert entries[1] == {"image_id": 7, "category_id": 3, "bbox": [1.5, 2.0, 10.0, 20.0], "score": 0.75}
    truth = COCO()
    truth.dataset = {"images": [{"id": 7}], "annotations": [], "categories": [{"id": 3}, {"id": 90}]}
    truth.createIndex()
    assert len(truth.loadRes(entries).getAnnIds(catIds=[90])) == 2


def test_coco_results_need_an_id_for_each_class():
    with pytest.raises(InputError, match="category_ids: must be 2, as many as names, found 3"):
        found().to_coco(7, (1, 2, 3))


@dataclasses.dataclass
class Columns:
    """What a library is called with: it is not among those that the tests need."""

    columns: Any = None
    xyxy: Any = None
    confidence: Any = None
    class_id: Any = None
    tracker_id: Any = None
    data: Any = None


def test_a_data_frame_has_a_row_for_each(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=Columns))
    table = found(track_ids=np.array([7, -1, 3])).to_dataframe().columns
    assert {name: list(column) for name, column in table.items()} == {
        "name": ["dog", "cat", "dog"],
        "label": [1, 0, 1],
        "score": [0.875, 0.75, 0.25],
        "left": [50, 1.5, 0],
        "top": [40, 2, 0],
        "right": [120, 11.5, 200],
        "bottom": [90, 22, 100],
        "track_id": [7, -1, 3],
    }
    assert "track_id" not in found().to_dataframe().columns


@pytest.mark.parametrize("tracks", [None, np.array([7, -1, 3])])
def test_supervision_gets_its_columns(monkeypatch, tracks):
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=Columns))
    given = found(track_ids=tracks).to_supervision()
    assert given.xyxy.tolist() == [[50, 40, 120, 90], [1.5, 2, 11.5, 22], [0, 0, 200, 100]]
    assert (given.xyxy.dtype, given.confidence.dtype, given.class_id.dtype) == (np.float32, np.float32, int)
    assert given.confidence.tolist() == [0.875, 0.75, 0.25]
    assert given.class_id.tolist() == [1, 0, 1]
    assert given.data["class_name"].tolist() == ["dog", "cat", "dog"]
    assert given.tracker_id is tracks or given.tracker_id.tolist() == tracks.tolist()


@pytest.mark.parametrize(
    ("method", "library"), [("to_dataframe", "pandas"), ("to_supervision", "supervision"), ("to_fiftyone", "fiftyone")]
)
def test_a_missing_library_is_named(monkeypatch, method, library):
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    with pytest.raises(InputError, match=f"{method}: needs {library}, .*: pip install {library}"):
        getattr(found(), method)()


# -------------------------------------------------------------------------------- targets


def targets() -> Targets:
    """Image 0 has two boxes, image 1 none, image 2 one; 32 x 64 px."""
    boxes = torch.tensor([[0.0, 0, 8, 8], [8, 8, 16, 24], [4, 4, 6, 6]])
    return Targets(torch.tensor([0, 0, 2]), torch.tensor([1, 0, 1]), boxes, image_hw=(32, 64))


def test_targets_follow_a_resize() -> None:
    half = targets().scaled((0.5, 0.25))
    assert half.boxes_xyxy_px.tolist() == [[0, 0, 4, 2], [4, 2, 8, 6], [2, 1, 3, 1.5]]
    assert half.image_hw == (8, 32)
    assert Targets(*[torch.zeros(0)] * 2, torch.zeros(0, 4)).scaled((2.0, 2.0)).image_hw is None


def test_targets_of_some_images() -> None:
    some = targets().of(torch.tensor([2, 0]))
    assert some.image_index.tolist() == [0, 1, 1]
    assert some.labels.tolist() == [1, 1, 0]
    assert some.boxes_xyxy_px.tolist() == [[4, 4, 6, 6], [0, 0, 8, 8], [8, 8, 16, 24]]
    assert some.image_hw == (32, 64)
    assert len(targets().of(torch.tensor([1]))) == 0
    assert len(targets().of(torch.zeros(0, dtype=torch.int64))) == 0


def test_class_targets_of_some_images() -> None:
    shares = torch.eye(3)
    assert torch.equal(ClassTargets(shares).of(torch.tensor([2, 0])).shares, shares[[2, 0]])


def test_targets_keep_the_size_of_their_images() -> None:
    assert targets().to(torch.device("cpu")).image_hw == (32, 64)
