"""Checkpoint files: tensors and plain values only, so that reading one cannot run code.

A ``.pt`` file holds one dictionary:

=================  ====================================================================================
``format``         ``"detect-checkpoint"``
``format_version`` 1
``definition``     the model as its YAML would say it, resolved (``definition_to_plain``)
``names``          K class names
``category_ids``   K ids of the annotation file that the model was trained on
``image_size``     side of the training images in pixels
``center_crop``    of a classifier: its evaluation looks at so much of an image's short side
``value_range``    only of images with more than 8 bits a channel: the values that become 0 and 255
                   (``detect.data.pixel_values``)
``metrics``        validation metrics of these weights
``provenance``     how they came about: command, versions, date, recipe, data
``state_dict``     weights and buffers; without ``training``, binary weights are packed as ``X.bits`` and ``X.alpha``
                   in the place of ``X.weight`` (``detect.models.packing``); of files that are made to be given
                   away the other weights are float16 (``detect.exporting.publish``)
``training``       what resuming needs (optimiser, average, epoch), or None
extras             an entry for each paper's extra (``detect.papers``), by its name, or None: ``instances`` has those
                   of a network that was trained with SDPoint, their norms' statistics and what was measured
=================  ====================================================================================

A file with ``training`` (``last.pt``) keeps Q, which binary weights are made of and which learns. A packed one
(``best.pt``) gives the same outputs, but has lost the magnitudes of Q: what is fine-tuned from it starts at +-alpha.
"""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import torch

from detect.errors import InputError
from detect.models.build import empty_model
from detect.models.catalog import find_weights
from detect.models.definition import definition_to_plain, parse_definition
from detect.models.foreign.kinds import DARKNET, LEGACY, SAFETENSORS, kind_of
from detect.models.model import ClassificationModel, DetectionModel, Model
from detect.models.packing import halve_state, pack_state, unpack_state
from detect.runtime.files import atomic_path
from detect.runtime.plugins import find_plugin, plugin_names
from detect.safety.allocation import AllocationLimit
from detect.safety.untrusted import check_tensors, read_facts, values_of

FORMAT = "detect-checkpoint"
FORMAT_VERSION = 1
_SPARE = 64
"""A model may make so many times the values that its file holds: BDSC's and depthwise convolutions take the place of
ordinary ones, which have up to k * k times as many."""
_NOT_OURS = (
    "is not a checkpoint of this toolkit; tools/train.py writes them, "
    "and tools/import_weights.py makes them of YOLOv5's, Darknet's and torchvision's weights"
)


class Extra(Protocol):
    """What a paper keeps in a checkpoint; its plug-in on the hook ``extras`` reads it and puts it into the model."""

    def to_plain(self) -> dict[str, Any]:
        """Plain values and tensors."""


_NO_EXTRAS: Mapping[str, Extra] = {}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, read and checked.

    Args:
        model: with the weights loaded, in evaluation mode, float32 on the CPU.
        names: K class names.
        category_ids: K ids of the annotation file.
        image_size: side of the training images in pixels.
        metrics: validation metrics of these weights.
        provenance: how they came about.
        training: what resuming needs, or None.
        center_crop: of a classifier: its evaluation looks at so much of an image's short side.
        extras: what papers keep, by the name of the entry; the model has it already.
        value_range: of images with more than 8 bits a channel: the values that become 0 and 255. None: the high byte.
    """

    model: Model
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_size: int
    metrics: dict[str, float]
    provenance: dict[str, Any]
    training: dict[str, Any] | None
    center_crop: float = 1.0
    extras: Mapping[str, Extra] = field(default_factory=dict)
    value_range: tuple[float, float] | None = None

    @property
    def detector(self) -> DetectionModel:
        """The model, where a detector is needed.

        Raises:
            InputError: it is a classifier.
        """
        if not isinstance(self.model, DetectionModel):
            raise InputError(f"{self.model.definition.name} is a classifier; here a detector is needed")
        return self.model

    @property
    def classifier(self) -> ClassificationModel:
        """The model, where a classifier is needed.

        Raises:
            InputError: it is a detector.
        """
        if not isinstance(self.model, ClassificationModel):
            raise InputError(f"{self.model.definition.name} is a detector; here a classifier is needed")
        return self.model


def save_checkpoint(path: Path, model: Model, **facts: Any) -> None:
    """Write a checkpoint atomically; ``facts`` are the keywords of ``checkpoint_archive``."""
    archive = checkpoint_archive(model, **facts)
    with atomic_path(path) as temporary:
        temporary.write_bytes(archive.getbuffer())


def rewrite_checkpoint(path: Path, checkpoint: Checkpoint, half: bool = False) -> None:
    """Write a checkpoint that was read, with what has changed in it; see ``checkpoint_archive`` for ``half``."""
    save_checkpoint(path, **{f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)}, half=half)


def checkpoint_archive(
    model: Model,
    *,
    names: tuple[str, ...],
    category_ids: tuple[int, ...],
    image_size: int,
    metrics: dict[str, float],
    provenance: dict[str, Any],
    training: dict[str, Any] | None = None,
    center_crop: float = 1.0,
    extras: Mapping[str, Extra] = _NO_EXTRAS,
    value_range: tuple[float, float] | None = None,
    half: bool = False,
) -> io.BytesIO:
    """A checkpoint's file in memory; the plain network must be running.

    The arguments are those of ``Checkpoint``; with ``half`` the file keeps the weights in half precision
    (``detect.models.packing.halve_state``). It is read as any other.
    """
    assert not model.graph.transform.fixed_sizes, "the state is the plain network's"
    state = model.state_dict()
    if training is None:
        state = pack_state(model, state)
    if half:
        state = halve_state(model, state)
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "definition": definition_to_plain(model.definition),
        "names": list(names),
        "category_ids": [int(i) for i in category_ids],
        "image_size": int(image_size),
        "center_crop": float(center_crop),
        **({} if value_range is None else {"value_range": list(value_range)}),
        "metrics": {key: float(value) for key, value in metrics.items()},
        "provenance": provenance,
        "state_dict": {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()},
        "training": training,
        **{name: extras[name].to_plain() if name in extras else None for name in plugin_names("extras")},
    }
    archive = io.BytesIO()  # on a full disk torch.save would raise a RuntimeError that hides the reason
    torch.save(content, archive)
    return archive


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: the file, or the name of a shipped one (``detect.models.catalog``).

    Raises:
        InputError: there is no such name; the file is missing, damaged, not a checkpoint of this toolkit, would need to
            run code to be read, or its weights do not fit its own definition or are not finite.
    """
    path = find_weights(path)
    content = _read(path)
    if content.get("format") != FORMAT:
        raise InputError(f"{path}: {_NOT_OURS}")
    if content.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: has format version {content.get('format_version')!r}; this program reads {FORMAT_VERSION}"
        )
    try:
        facts = read_facts(content, str(path))
        state = content["state_dict"]
        check_tensors(state, str(path))
        with AllocationLimit(_SPARE * values_of(state)):
            model = empty_model(parse_definition(content["definition"], str(path)), len(facts.names))
        load_weights(model, unpack_state(model, state, str(path)), path)
        extras = {
            name: find_plugin("extras", name)(content[name], model)
            for name in plugin_names("extras")
            if content.get(name)
        }
        return Checkpoint(
            model=model.eval(),
            provenance=dict(content["provenance"]),
            training=content["training"],
            extras=extras,
            **facts._asdict(),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is an incomplete checkpoint ({str(error)[:200]})") from None


def load_weights(model: Model, state: dict[str, torch.Tensor], path: Path) -> None:
    """Load a state dict that must fit exactly and be finite.

    Raises:
        InputError: names or shapes differ (the first few are told), a value is NaN or infinite, or a variance negative.
    """
    own = model.state_dict()
    wrong = sorted(set(own) ^ set(state)) or [
        f"{name} is {tuple(state[name].shape)}, must be {tuple(own[name].shape)}"
        for name in own
        if own[name].shape != state[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(f"{path}: weights of another model: {'; '.join(wrong[:3])}{more}")
    no_use = "the file is of no use"
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor.to(own[name].dtype)).all()]
    if broken:
        raise InputError(f"{path}: {broken[0]} is not finite ({len(broken)} tensors in all); {no_use}")
    negative = [name for name, tensor in state.items() if name.endswith(".running_var") and (tensor < 0).any()]
    if negative:
        raise InputError(f"{path}: {negative[0]} has a negative variance ({len(negative)} tensors in all); {no_use}")
    model.load_state_dict(state)


def _read(path: Path) -> dict[str, Any]:
    try:
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: holds Python objects, not only tensors and plain values; "
            "reading it could run code, so it is refused; "
            "tools/import_weights.py imports models of YOLOv5 and torchvision without running any"
        ) from None
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, LookupError, ValueError, AttributeError):
        raise InputError(f"{path}: {_no_checkpoint(path)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: {_NOT_OURS}")
    return content


def _no_checkpoint(path: Path) -> str:
    """What a file is that could not be read."""
    kind = kind_of(path)
    if kind is not None and kind in (DARKNET, LEGACY, SAFETENSORS):
        return f"is {kind.text}, not a checkpoint of this toolkit; tools/import_weights.py makes one of it"
    return "is not a checkpoint, or is damaged"


def _check_archive(path: Path) -> None:
    """Refuse what PyTorch does not write: entries that would grow when they are read.

    Compare the archive's checksums, which PyTorch does not: a flipped bit would be another weight.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        grows = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if grows or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise InputError(f"{path}: has compressed or overlapping entries, which PyTorch does not write; refused")
        broken = archive.testzip()
    if broken:
        raise zipfile.BadZipFile(broken)
