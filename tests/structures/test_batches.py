from __future__ import annotations

import torch

from detect.structures import ClassTargets, Targets


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
