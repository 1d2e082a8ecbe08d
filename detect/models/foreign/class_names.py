"""Class names of imported weights: COCO's, those of ``--names``, and their checks against the model."""

from __future__ import annotations

from pathlib import Path

from detect.class_names import match_names
from detect.errors import InputError, is_writable
from detect.models.model import Model

COCO_NAMES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)
"""The 80 classes of most published detectors, in their order.

Source: the annotations of COCO 2017. Lists that come with weights may differ (``sofa``, ``tvmonitor``).
"""
_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = tuple(number for number in range(1, 91) if number not in _UNUSED_IDS)
"""Category ids of COCO's annotations, with gaps."""
ANY_NAMES, CLASSIFIER_NAMES = "coco, a file, or how many classes", "a file, or how many classes"
"""Allowed values of ``--names``, in messages."""


def read_names(text: str) -> tuple[str, ...]:
    """The names that ``--names`` gives: ``coco``, a number of classes, or a file with a name on each line."""
    if text == "coco":
        return COCO_NAMES
    if text.isdecimal() and 0 < int(text) <= 10_000:
        return tuple(str(i) for i in range(int(text)))
    path = Path(text)
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"--names {text}: cannot be read: {reason}; coco, a file or a number is allowed") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text with a class name on each line") from None
    names = tuple(line.strip() for line in lines)
    if not names or "" in names:
        raise InputError(f"{path}: must have a class name on each line")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}: duplicate class {repeated[0]!r}")
    return names


def names_needed(weights: Path, allowed: str) -> InputError:
    """Error of weights without class names where ``--names`` gives none."""
    return InputError(f"--names: is needed, because {weights} has none: {allowed}")


def refuse_coco(text: str | None) -> None:
    """Refuse COCO's names for a classifier."""
    if text == "coco":
        raise InputError(f"--names coco: is for detectors; a classifier takes {CLASSIFIER_NAMES}")


def check_names(names: tuple[str, ...], model: Model, weights: Path) -> None:
    """Refuse names that cannot be written, or of another number of classes than the model's."""
    if not all(map(is_writable, names)):
        raise InputError(f"{weights}: has a class name with a lone surrogate; give --names")
    if len(names) != model.num_classes:
        raise InputError(f"{weights}: has {model.num_classes} classes, but {len(names)} names are given")


def renaming_line(of_file: tuple[str, ...] | None, given: tuple[str, ...], weights: Path) -> str:
    """Describe the names that ``--names`` changes.

    Raises:
        InputError: it changes their order only, and would give each class the name of another.
    """
    if of_file is None or of_file == given or len(of_file) != len(given):
        return ""
    match = match_names(of_file, given)
    if not match.only_source:
        raise InputError(
            f"--names: are the class names of {weights} in another order; the file's weights have their own: leave it "
            "out"
        )
    pairs = [f"{old!r} is now {new!r}" for old, new in zip(of_file, given, strict=True) if old != new]
    return f"; --names renames {len(pairs)} of the file's {len(of_file)} classes: {'; '.join(pairs[:3])}"
