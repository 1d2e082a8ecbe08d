"""A data set: the schema of ``configs/data``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval
from pydantic import Discriminator, Tag

from detect.config.base import Listed, Named, Strict, Unit, build
from detect.config.yaml_files import INSTALLED_CONFIGS, find_config, load_yaml
from detect.errors import InputError, is_path


def _form(value: Any) -> Literal["list", "mapping", "word"]:
    """Return the member of a union by the YAML form of a value; any other value counts as a list."""
    return "mapping" if isinstance(value, (dict, Strict)) else "word" if isinstance(value, str) else "list"


DataFormat = Literal[
    "coco",
    "voc",
    "yolo",
    "visdrone",
    "shards",
    "cvat",
    "label-studio",
    "labelme",
    "via",
    "supervisely",
    "scenes",
    "folders",
    "cifar",
    "tiny-imagenet",
    "cub",
    "stanford-dogs",
]
"""Formats of the annotations of a data set."""

Ingredient = Literal["textures", "families", "populations", "paints", "boards", "sensors"]
"""Parts of generated scenes that ``DataConfig.scene_without`` can leave out."""


@dataclass(frozen=True)
class SplitConfig(Strict):
    """One split of a data set; paths are relative to the data set's root."""

    images: str
    """Folder of the images. ``folders``: the folder that holds one folder for each class. ``cifar``: the archive
    (``cifar-10-python.tar.gz``, ``cifar-100-binary.tar.gz``) or the folder that it unpacks to; of what matches a
    pattern (``cifar-10-*``) the first is taken. ``shards``: the tar files, ``train-*.tar`` or
    ``train-{000000..000119}.tar``. ``scenes``: name of a stream of generated scenes; another name, other scenes."""
    annotations: str | None = None
    """COCO, CVAT, Label Studio, VIA: the file. VOC, VisDrone, labelme: the folder of the XML, txt or JSON files.
    YOLO: the folder of the txt files; default, ``labels`` in the place of ``images``. Supervisely: the folder of a data
    set, or of several. ``cifar``, ``cub``: the part, ``train`` or ``test``; default, the split's own name.
    ``stanford-dogs``: the list of the split (``train_list.mat``). ``tiny-imagenet``: the file that says what validation
    images show (``val/val_annotations.txt``); training images lie in the folders of their classes. Not used by
    ``folders``."""
    list: str | None = None
    """VOC, VisDrone: text file with one image stem per line (``ImageSets/Main/train.txt``). YOLO: text file with
    one image path per line, relative to that file, to the root or to ``images``."""
    parts: Listed[str] = ()
    """YOLO: several folders of images, and text files as in ``list``, that are the split together; ``images`` is
    then the folder above them. CVAT: the subsets of the project that are the split."""
    count: Annotated[int, Ge(1)] | None = None
    """``scenes``: number of scenes; in training, of an epoch, and each epoch draws new ones."""


@dataclass(frozen=True)
class RangeConfig(Strict):
    """Value range, measured on the training split."""

    percentiles: Listed[Annotated[float, Interval(ge=0, le=100), Unit("%")]] = (0.01, 99.99)
    """Of all values in a sample of the images: the first becomes black, the second white."""


@dataclass(frozen=True)
class DataConfig(Strict):
    """A data set."""

    name: str
    """Name in reports."""
    root: str
    """Folder, relative to the YAML's own folder; ``--data-root`` replaces it."""
    splits: Named[SplitConfig]
    """Split name (train, val, test, ...) to its files."""
    format: DataFormat | None = None
    """Format of the annotations. For detection ``coco``, ``voc``, ``yolo``, ``visdrone``, ``shards``, and the
    labelling tools' own ``cvat``, ``label-studio``, ``labelme``, ``via`` and ``supervisely``, which are recognised when
    this is left out (``detect.data.recognition``), and ``scenes``, which are drawn in memory
    (``detect.data.scenes``); for classification ``folders`` (a
    folder of images for each class), ``cifar`` (the archives of CIFAR-10 and CIFAR-100), ``tiny-imagenet``, ``cub``
    (CUB-200-2011) and ``stanford-dogs``."""
    names: Listed[str] | None = None
    """Class names in index order. COCO, VisDrone, shards: categories to use (others are dropped); default, all.
    VOC and labelling tools: default, those that the tool lists, and all others found in the training split, sorted.
    YOLO: the names of the classes 0, 1, ...; default,
    the lines of ``classes.txt``, else the numbers. ``folders``: folders to use; default, all of the training split,
    sorted. ``cifar``, ``tiny-imagenet``, ``cub``, ``stanford-dogs``: classes to use; default, all."""
    background: Literal["keep", "drop"] = "keep"
    """``drop`` leaves images without boxes out of the training."""
    generate: Literal["shapes", "digits"] | None = None
    """``shapes`` and ``digits`` generate that embedded data set in ``root`` if it does not exist."""
    scene_px: Annotated[int, Interval(ge=32, le=4096), Unit("px")] = 320
    """``scenes``: width and height of a scene."""
    scene_without: Listed[Ingredient] = ()
    """``scenes``: ingredients that are left out, to measure what each is worth. ``textures``: backgrounds have one
    colour; ``families``: discs and rectangles only; ``populations``: each object has a style of its own; ``paints``:
    objects have plain colours and sharp edges; ``boards``: no line patterns with defects; ``sensors``: no blur, noise,
    vignetting and JPEG."""
    range: (
        Annotated[
            Annotated[Listed[float], Tag("list")]
            | Annotated[RangeConfig, Tag("mapping")]
            | Annotated[Literal["measured"], Tag("word")],
            Discriminator(_form),
        ]
        | None
    ) = None
    """Of images with more than 8 bits a channel, the values that become black and white: ``[low, high]``, or
    ``measured``, or the percentiles to measure. Default: measured where the values need it, because they use less
    than half of the 256 levels that the high byte has, or have a sign or a fraction. Others keep the high byte.
    Images of 8 bits are never changed."""
    max_pixels: Annotated[int, Interval(ge=1, le=2**30), Unit("px")] = 178_956_970
    """Larger images are skipped. Decoding takes 7 bytes a pixel temporarily."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if not self.splits:
            yield "splits", "is empty; name at least train and val"


def load_data_config(name: str, data_root: str | None = None) -> DataConfig:
    """Load a data config, with ``root`` as an absolute path.

    Args:
        name: name of a shipped data config, or a file.
        data_root: replaces the file's ``root``; relative to the current folder.
    """
    path = find_config("data", name)
    config = build(DataConfig, load_yaml(path), str(path))
    root = os.path.expanduser(data_root or config.root)  # noqa: PTH111  # keeps ~nobody, where Path raises
    if not is_path(root):
        raise InputError(f"{path}: root: {root!r:.100} cannot be a path")
    return dataclasses.replace(config, root=os.path.realpath(root if data_root else _root_folder(path) / root))


def _root_folder(path: Path) -> Path:
    """Return the folder of a relative ``root``: that of the file; for an installed config, ``configs/data`` here."""
    is_installed = path.is_relative_to(INSTALLED_CONFIGS)
    return Path("configs", "data").absolute() if is_installed else path.parent
