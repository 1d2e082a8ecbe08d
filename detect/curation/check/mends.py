"""Mends of the problems that a check finds, in one line each."""

from __future__ import annotations

from detect.curation.check import severity
from detect.data import checks
from detect.data.formats import coco, coco_annotations, label_studio, labelled_images, yolo

FIX = "detect data fix writes a copy without them"
"""Mend of what is left out for certain."""

CORRECT = "detect data fix writes a copy with them corrected"
"""Mend of what is kept and written as it should be."""

_LEFT_OUT = (checks.REPEATED, severity.UNDER_A_PIXEL, severity.UNDECODABLE, coco.REPEATED_IMAGE)
_LEFT_OUT_END = "skipped)"
_CORRECTED = (coco_annotations.BAD_CROWD, coco_annotations.BAD_AREA, coco_annotations.OTHER_TYPE_ID)
_CORRECTED_END = "renumbered)"

_MENDS = {
    checks.PARTLY_OUTSIDE: "detect data fix writes a copy with them clipped",
    checks.OTHER_SIZE: "detect data fix writes a copy with the images' own sizes",
    checks.BAD_IMAGE: "put the images where the annotations name them, or detect data fix leaves them out",
    checks.WRONG_SIZE: "bring the images that were labelled: boxes of a resized copy lie elsewhere",
    checks.UNROTATED_SIZE: "look with detect data view whether the boxes are turned; if so, label the upright image",
    checks.SHARED_FILE: "list each image once",
    severity.CORNERS: "write [left, top, width, height], or convert the corners where the file is made",
    severity.NORMALISED: "multiply by the size of the image, or export with pixels",
    severity.DAMAGED_PIXELS: "copy the images again from their source",
    severity.DUPLICATE: "remove one of the two, or label both alike",
    severity.LEAK: "detect data split keeps copies in one split; or remove them from one",
    severity.UNLISTED: "label them, or take them out of the folder",
    severity.OTHER_NAMES: "list the same names in the data config, or rename the class where it is misspelled",
    severity.NEVER_TRAINED: "label some, or leave the class out of names",
    severity.PADDED_NAME: "rename the class in the labelling tool",
    severity.SIMILAR_NAME: "rename one of them in the labelling tool, or they stay two classes",
    severity.UNPRINTABLE_NAME: "rename the class in the labelling tool",
    severity.REFUSED: "mend the file as the line says, or export it again",
    severity.FEW_GREYS: "state range in the data config",
    coco.SHARED_NAME: "give the categories different names, or merge them",
    coco_annotations.IMPOSSIBLE_AREA: "detect val --areas boxes measures by width x height",
    label_studio.UNLABELLED: "label them, or submit an empty annotation if there is nothing",
    label_studio.TURNED: "look with detect data view whether the boxes are turned; if so, label the upright image",
    label_studio.OTHER_ANNOTATION: "mark the right one as ground truth",
    labelled_images.BAD_ENTRY: "export again, with the names of the images",
    yolo.UNKNOWN_CLASS: "give all names, in the order of the class numbers",
    labelled_images.NO_BOX: "draw a box or an outline around these objects",
}


def mend_of(kind: str) -> str:
    """Return what mends a kind of problem; empty where there is nothing to do."""
    if kind in _MENDS:
        return _MENDS[kind]
    is_note = severity.severity_of(kind) == "note"
    if kind in _CORRECTED or (kind.endswith(_CORRECTED_END) and not is_note):
        return CORRECT
    return FIX if kind in _LEFT_OUT or (kind.endswith(_LEFT_OUT_END) and not is_note) else ""
