"""Detectors in SAHI, which cuts large images into slices: ``SahiModel``. Needs the extra ``sahi``.

Example:
    ``get_sliced_prediction("large.jpg", SahiModel("best.pt", confidence_threshold=0.25))``

``SahiModel`` is a ``sahi.models.base.DetectionModel`` and takes its arguments: ``model_path`` is whatever ``Detector``
takes, ``model`` a ``Detector``, ``image_size`` the side of the network input in pixels, by default the training's. A
category's id is that of the annotation file of the training. Masks and ``config_path`` have no meaning here.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from detect.errors import InputError
from detect.inference.detector import Detector
from detect.structures import Detections

MODEL_TYPE = "detect"
"""Name for ``AutoDetectionModel.from_pretrained``, after ``register``."""


class Adapter:
    """The methods of a SAHI model that a detector fills in; ``SahiModel`` is it with SAHI's base class."""

    model: Detector
    model_path: Any
    device: Any
    confidence_threshold: float
    image_size: int | None
    category_mapping: dict[str, str] | None

    def load_model(self) -> None:
        self.set_model(Detector(str(self.model_path), str(self.device)))

    def set_model(self, model: Detector, **_: Any) -> None:
        self.model = model
        if self.category_mapping is None:
            pairs = zip(model.category_ids, model.names, strict=True)
            self.category_mapping = {str(number): name for number, name in pairs}

    def perform_inference(self, image: np.ndarray) -> None:
        """Detect in one image, (H, W, 3) uint8 RGB."""
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: list[np.ndarray]) -> None:
        """Detect in images, (H, W, 3) uint8 RGB each; those of one shape go through the network together."""
        self._original_predictions = self.model.predict(
            [np.ascontiguousarray(image) for image in images],
            conf=self.confidence_threshold,
            image_size=self.image_size,
            batch_size=max(len(images), 1),
        )

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list: Any = None, full_shape_list: Any = None
    ) -> None:
        shifts, shapes = _for_each(shift_amount_list), _for_each(full_shape_list)
        self._object_prediction_list_per_image = [
            self._converted(found, shifts[index] if shifts else [0, 0], shapes[index] if shapes else None)
            for index, found in enumerate(self._original_predictions)
        ]

    def _converted(self, found: Detections, shift_xy: list[int], full_hw: list[int] | None) -> list[Any]:
        from sahi.prediction import ObjectPrediction

        sides = found.boxes_xyxy_px[:, 2:] - found.boxes_xyxy_px[:, :2]
        ids, names = self.model.category_ids, self.category_mapping or {}
        return [
            ObjectPrediction(
                bbox=list(one.box_xyxy_px),
                category_id=ids[one.label],
                category_name=names[str(ids[one.label])],
                score=one.score,
                shift_amount=shift_xy,
                full_shape=full_hw,
            )
            for one in found.select((sides > 0).all(axis=1))  # SAHI refuses boxes without area
        ]


def register() -> None:
    """Make ``AutoDetectionModel.from_pretrained("detect", model_path="best.pt")`` give a ``SahiModel``.

    Raises:
        InputError: SAHI is not installed.
    """
    _model_class()
    from sahi import auto_model

    auto_model.MODEL_TYPE_TO_MODEL_CLASS_NAME[MODEL_TYPE] = "SahiModel"
    sys.modules[f"sahi.models.{MODEL_TYPE}"] = sys.modules[__name__]  # where SAHI looks for the class


def __getattr__(name: str) -> Any:
    """``SahiModel``, made when it is asked for, because its base class is SAHI's."""
    if name != "SahiModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _model_class()


@functools.cache
def _model_class() -> type:
    try:
        from sahi.models.base import DetectionModel
    except ImportError as error:
        missing = (error.name or "sahi").partition(".")[0]
        raise InputError(f"SahiModel: needs the package {missing}: pip install 'detect-small[sahi]'") from None
    return type("SahiModel", (Adapter, DetectionModel), {"__module__": __name__, "__doc__": __doc__})


def _for_each(values: Sequence[Any] | None) -> list[Any]:
    """One entry for each image; SAHI gives a single one bare."""
    if not values:
        return []
    return [list(values)] if isinstance(values[0], (int, float)) else list(values)
