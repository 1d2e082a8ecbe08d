from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from detect.data.letterbox import letterbox, pad_batch
from detect.errors import InputError
from detect.evaluation.forward import evaluation_mode, run_network
from detect.evaluation.postprocess import COCO_SETTINGS, PredictSettings, postprocess
from detect.models.build import build_model
from detect.structures import Letterbox

CPU = torch.device("cpu")
NAMES = ("a", "b")


def prediction(cx, cy, w, h, objectness, *classes):
    return [cx, cy, w, h, objectness, *classes]


def test_nothing_above_the_threshold():
    (found,) = postprocess(torch.zeros(1, 4, 7), [Letterbox((1, 1), (40, 60))], PredictSettings(), NAMES)
    assert len(found) == 0
    assert found.boxes_xyxy_px.shape == (0, 4)
    assert found.image_hw == (40, 60)


def test_an_empty_batch_has_no_detections():
    assert postprocess(torch.zeros(0, 4, 7), [], PredictSettings(), NAMES) == []


def test_boxes_go_back_to_the_original_image():
    # Scaled by 0.5 in x and 0.25 in y: centre (20, 10), size (10, 4) is x 15..25, y 8..12 in the network, x 30..50, y
    # 32..48 before.
    raw = torch.tensor([[prediction(20, 10, 10, 4, 0.9, 0.2, 0.8)]])
    (found,) = postprocess(raw, [Letterbox((0.5, 0.25), (100, 200))], PredictSettings(), NAMES)
    np.testing.assert_allclose(found.boxes_xyxy_px, [[30, 32, 50, 48]])
    np.testing.assert_allclose(found.scores, [0.72], rtol=1e-6)  # 0.9 x 0.8
    assert found.labels.tolist() == [1]
    assert found.class_names == ["b"]


def test_boxes_in_the_padding_are_left_out():
    # The image takes 32 x 32 of the network input; a box at x 40..50 lies in the padding, one at x 28..48 is cut at 32.
    raw = torch.tensor([[prediction(45, 10, 10, 10, 0.9, 1, 0), prediction(38, 10, 20, 10, 0.8, 1, 0)]])
    (found,) = postprocess(raw, [Letterbox((1, 1), (32, 32))], PredictSettings(), NAMES)
    np.testing.assert_allclose(found.boxes_xyxy_px, [[28, 5, 32, 15]])


def test_boxes_that_are_not_numbers_are_left_out():
    raw = torch.tensor([[prediction(float("nan"), 10, 10, 10, 0.9, 1, 0)]])
    (found,) = postprocess(raw, [Letterbox((1, 1), (32, 32))], PredictSettings(), NAMES)
    assert len(found) == 0


@pytest.mark.parametrize(("multi_label", "expected"), [(True, [0, 1]), (False, [0])])
def test_multi_label_and_best_class(multi_label, expected):
    raw = torch.tensor([[prediction(16, 16, 10, 10, 1, 0.9, 0.8)]])
    settings = PredictSettings(multi_label=multi_label)
    (found,) = postprocess(raw, [Letterbox((1, 1), (32, 32))], settings, NAMES)
    assert found.labels.tolist() == expected


def test_classes_are_chosen():
    raw = torch.tensor([[prediction(8, 8, 8, 8, 1, 0.9, 0), prediction(24, 24, 8, 8, 1, 0, 0.8)]])
    (found,) = postprocess(raw, [Letterbox((1, 1), (32, 32))], PredictSettings(classes=(1,)), NAMES)
    assert found.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 1.5}, "score threshold: must be from 0 to 1, found 1.5"),
        ({"score_threshold": float("nan")}, "score threshold: must be from 0 to 1, found nan"),
        ({"iou_threshold": -0.1}, "IoU threshold: must be from 0 to 1, found -0.1"),
        ({"max_detections": 0}, "must be at least 1, found 0"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        PredictSettings(**options)


def test_evaluation_mode_ends_with_an_error_too():
    model = nn.Dropout()
    with pytest.raises(KeyError), evaluation_mode(model):
        {}["missing"]
    assert model.training


def test_evaluation_mode_restores_each_module():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout())
    model.train()
    model[0].eval()  # frozen while the rest trains
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert [model.training, model[0].training, model[1].training] == [True, False, True]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("yolov5n+width=0.1", num_classes=2).eval()


def random_images(*shapes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


def test_network_sees_rgb_in_zero_to_one(model):
    images = torch.from_numpy(pad_batch(random_images((64, 96))))
    expected = model.decode(model(images.permute(0, 3, 1, 2).float() / 255))
    found = run_network(model, images, CPU)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-4)
    assert not found.requires_grad


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_is_decoded_in_float32(model, precision):
    images = torch.from_numpy(pad_batch(random_images((64, 64))))
    full, reduced = (run_network(model, images, CPU, p) for p in ("fp32", precision))
    assert reduced.dtype == torch.float32
    assert not torch.equal(full, reduced)
    torch.testing.assert_close(reduced[..., 4:], full[..., 4:], rtol=0, atol=0.02)


def test_batch_equals_single(model):
    placed = [letterbox(image, 64) for image in random_images((80, 120), (160, 240))]
    settings = PredictSettings(score_threshold=0.0, max_detections=20)

    def predict(part):
        images = torch.from_numpy(pad_batch([image for image, _ in part]))
        return postprocess(run_network(model, images, CPU), [box for _, box in part], settings, NAMES)

    together = predict(placed)
    for index, alone in enumerate(predict([single])[0] for single in placed):
        assert len(alone) > 0
        np.testing.assert_allclose(together[index].scores, alone.scores, rtol=1e-4)
        np.testing.assert_allclose(together[index].boxes_xyxy_px, alone.boxes_xyxy_px, atol=0.01)


def test_coco_settings_leave_room_for_a_hundred_detections_of_several_classes():
    assert COCO_SETTINGS.max_detections > 100
    assert COCO_SETTINGS.multi_label
