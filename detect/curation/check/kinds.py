"""Kinds of problems that a check finds: their severities, and what mends them, a line each."""

from __future__ import annotations

from typing import Literal, get_args

from detect.data import checks
from detect.data.annotations import Understood
from detect.data.formats import coco, coco_annotations, label_studio, labelled_images, yolo
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
NAMED_ALIKE = "images that by their names are Roboflow's copies of another split's (kept; metrics may be too high)"
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

FIX = "detect data fix writes a copy without them"
"""Mend of what is left out for certain."""

CORRECT = "detect data fix writes a copy with them corrected"
"""Mend of what is kept and written as it should be."""

_LEFT_OUT = (checks.REPEATED, UNDER_A_PIXEL, UNDECODABLE, coco.REPEATED_IMAGE)
_LEFT_OUT_END = "skipped)"
_CORRECTED = (coco_annotations.BAD_CROWD, coco_annotations.BAD_AREA, coco_annotations.OTHER_TYPE_ID)
_CORRECTED_END = "renumbered)"

_MENDS = {
    checks.PARTLY_OUTSIDE: "detect data fix writes a copy with them clipped",
    checks.OUTSIDE: "YOLO's numbers above 1? they are pixels: export again; otherwise detect data fix leaves them out",
    checks.OTHER_SIZE: "detect data fix writes a copy with the images' own sizes",
    checks.BAD_IMAGE: "put the images where the annotations name them, or detect data fix leaves them out",
    checks.WRONG_SIZE: "bring the images that were labelled: boxes of a resized copy lie elsewhere",
    checks.UNROTATED_SIZE: "look with detect data view whether the boxes are turned; if so, label the upright image",
    checks.SHARED_FILE: "list each image once",
    CORNERS: "write [left, top, width, height], or convert the corners where the file is made",
    NORMALISED: "multiply by the size of the image, or export with pixels",
    DAMAGED_PIXELS: "copy the images again from their source",
    DUPLICATE: "remove one of the two, or label both alike",
    LEAK: "detect data split keeps copies in one split; or remove them from one",
    NAMED_ALIKE: r"detect data split --group '(.+)\.rf\.' keeps copies of a photograph in one split",
    UNLISTED: "label them, or take them out of the folder",
    OTHER_NAMES: "list the same names in the data config, or rename the class where it is misspelled",
    NEVER_TRAINED: "label some, or leave the class out of names",
    PADDED_NAME: "rename the class in the labelling tool",
    SIMILAR_NAME: "rename one of them in the labelling tool, or they stay two classes",
    UNPRINTABLE_NAME: "rename the class in the labelling tool",
    REFUSED: "mend the file as the line says, or export it again",
    FEW_GREYS: "state range in the data config",
    coco.SHARED_NAME: "give the categories different names, or merge them",
    coco_annotations.IMPOSSIBLE_AREA: "detect val --areas boxes measures by width x height",
    label_studio.UNLABELLED: "label them, or submit an empty annotation if there is nothing",
    label_studio.TURNED: "look with detect data view whether the boxes are turned; if so, label the upright image",
    label_studio.PREDICTIONS: "they are no labels: accept or correct them in the project, and export again",
    label_studio.OTHER_ANNOTATION: "mark the right one as ground truth",
    labelled_images.BAD_ENTRY: "export again, with the names of the images",
    yolo.UNKNOWN_CLASS: "give all names, in the order of the class numbers",
    labelled_images.NO_BOX: "draw a box or an outline around these objects",
}


def severity_of(kind: str) -> Severity:
    """Return the severity of a kind above, or by its consequence of one of a reader: skipped data is lost, an error."""
    if isinstance(kind, Understood):
        return "note"
    return _SEVERITIES.get(kind, "error" if kind.endswith("skipped)") else "warning")


def mend_of(kind: str) -> str:
    """Return what mends a kind of problem; empty where there is nothing to do."""
    if kind in _MENDS:
        return _MENDS[kind]
    is_note = severity_of(kind) == "note"
    if kind in _CORRECTED or (kind.endswith(_CORRECTED_END) and not is_note):
        return CORRECT
    return FIX if kind in _LEFT_OUT or (kind.endswith(_LEFT_OUT_END) and not is_note) else ""
