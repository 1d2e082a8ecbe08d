"""Severities of the kinds of problems."""

from __future__ import annotations

from typing import Literal, get_args

from detect.data.annotations import Understood
from detect.data.formats.annotation_files import EXTENDED_NAME, NOT_IN_CLASS, REPEATED_STEM
from detect.data.formats.image_names import NOT_AS_WRITTEN
from detect.data.formats.shard_index import DAMAGED as DAMAGED_SHARD
from detect.data.formats.yolo_rows import COMMAS

Severity = Literal["error", "warning", "note"]
"""``error``: data is lost or wrong. ``warning``: kept or corrected, but hardly intended. ``note``: valid, for
information."""

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""From the worst on."""

REFUSED = "split that cannot be read (its annotations are checked no further)"
UNDECODABLE = "images whose pixels cannot be decoded (training goes on without them)"
DAMAGED_PIXELS = "images with damaged pixels (used as they are: parts are grey or shifted)"
SURPLUS = "images with bytes left over after their pixels (used as they are: surplus, or damage further up)"
SEVERAL_FRAMES = "images with several frames or pages (the first is used)"
FEW_GREYS = "images of more than 8 bits that show fewer than 16 of the 256 levels (used as they are; set range)"
DEEP = "images of more than 8 bits a channel (their range is stated)"
DEEP_MEASURED = "images of more than 8 bits a channel (their range is measured; state it in the data config)"
DEEP_AS_IT_IS = "images of more than 8 bits a channel (their high byte is used)"
DUPLICATE = "images with the content of another one of the split (kept)"
LEAK = "images that another split has, too (kept; metrics on them are too high)"
UNLISTED = "images in the folder that no annotation names (not used)"
UNLABELLED = "split without an annotations list (nothing can be trained or measured on it)"
UNLABELLED_TEST = "split without an annotations list (detections can be written for it, not measured)"
NOTHING_TO_TRAIN = "split without a box to train on (training refuses it)"
NOTHING_TO_MEASURE = "split without a box (AP cannot be measured on it)"
BACKGROUND = "images without boxes (kept as background)"
BACKGROUND_DROPPED = "images without boxes (dropped from training: background: drop)"
CROWD = "crowd regions (not trained on; detections in them count neither as right nor as wrong)"
CORNERS = "boxes that read as [left, top, right, bottom] (taken as [left, top, width, height], as COCO has it)"
NORMALISED = "boxes of at most 1 x 1 px, all of them: as if in shares of the image (taken as pixels)"
UNDER_A_PIXEL = "boxes with a side of less than a pixel (kept)"
OTHER_NAMES = "class names that only one of two splits has (classes are compared by name)"
NEVER_TRAINED = "classes without a box in train (never learned)"
UNPRINTABLE_NAME = "class names with characters that cannot be printed (shown as escapes)"
PADDED_NAME = "class names that begin or end with a space, or are empty (kept)"
SIMILAR_NAME = "class names that differ from another one only in case or spaces (kept as separate classes)"

_SEVERITIES: dict[str, Severity] = {
    REFUSED: "error",
    UNDECODABLE: "error",
    DAMAGED_PIXELS: "error",
    UNLABELLED: "error",
    NOTHING_TO_TRAIN: "error",
    CORNERS: "error",
    DAMAGED_SHARD: "error",  # the rest of the file is lost
    NORMALISED: "error",
    OTHER_NAMES: "error",
    UNLABELLED_TEST: "note",
    DEEP: "note",
    DEEP_AS_IT_IS: "note",
    BACKGROUND: "note",
    BACKGROUND_DROPPED: "note",
    CROWD: "note",
    NOT_AS_WRITTEN: "note",
    EXTENDED_NAME: "note",
    NOT_IN_CLASS: "note",
    COMMAS: "note",
    REPEATED_STEM: "warning",  # the second of two equal lines is skipped: nothing is lost
}


def severity_of(kind: str) -> Severity:
    """Return the severity of a kind above, or by its consequence of one of a reader: skipped data is lost, an error."""
    if isinstance(kind, Understood):
        return "note"
    return _SEVERITIES.get(kind, "error" if kind.endswith("skipped)") else "warning")
