from __future__ import annotations

import numpy as np
import torch

from detect.structures import ClassTargets, Detections, Targets


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


def test_tracks_stay_with_their_detections() -> None:
    boxes, scores, labels = np.zeros((3, 4), np.float32), np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 0])
    tracked = Detections(boxes, scores, labels, (4, 4), ("cat", "dog"), track_ids=np.array([7, -1, 5]))
    assert tracked.select(np.array([True, False, True])).track_ids.tolist() == [7, 5]  # type: ignore[union-attr]
    assert tracked.to_supervision()["tracker_id"].tolist() == [7, -1, 5]  # type: ignore[union-attr]
    plain = Detections(boxes, scores, labels, (4, 4), ("cat", "dog"))
    assert plain.select(np.array([1])).track_ids is None
    assert "tracker_id" not in plain.to_supervision()
