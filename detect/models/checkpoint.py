"""Checkpoint files: tensors and plain values only, so that reading one cannot run code.

A ``.pt`` file holds one dictionary:

=================  ====================================================================================
``format``         ``"detect-checkpoint"``
``format_version`` 1
``definition``     the model's resolved YAML (``definition_to_plain``)
``names``          K class names
``category_ids``   K ids of the annotation file that the model was trained on
``image_size``     side of the training images in pixels
``center_crop``    of a classifier: share of an image's short side that its evaluation crops
``value_range``    for images with more than 8 bits a channel only: the values that become 0 and 255
                   (``detect.data.pixel_values``)
``metrics``        validation metrics of these weights
``provenance``     origin of the weights: command, versions, date, recipe, data
``state_dict``     weights and buffers; without ``training``, binary weights are packed as ``X.bits`` and ``X.alpha``
                   in place of ``X.weight`` (``detect.models.packing``); in published files the other weights are
                   float16 (``detect.exporting.ship``)
``training``       state for resuming (optimiser, average, epoch), or None
extras             an entry for each paper's extra (``detect.papers``), by its name, or None: ``instances`` holds the
                   networks of a training with SDPoint, their norms and measurements
=================  ====================================================================================

``detect ship`` writes the same content, without ``training``, as ``.safetensors`` too
(``detect.models.safetensors_file``).

A file with ``training`` (``last.pt``) keeps Q, the trained values behind the binary weights. A packed one (``best.pt``)
gives the same outputs, but has lost the magnitudes of Q: fine-tuning from it starts at +-alpha.
"""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from detect.errors import InputError, unreadable
from detect.models.build import empty_model
from detect.models.catalog import find_weights
from detect.models.definition import definition_to_plain, parse_definition
from detect.models.foreign.kinds import DARKNET, LEGACY, SAFETENSORS, kind_of
from detect.models.model import ClassificationModel, DetectionModel, Model
from detect.models.packing import halve_state, pack_state, unpack_state
from detect.models.safetensors_file import checkpoint_bytes, read_checkpoint
from detect.runtime.files import atomic_path
from detect.runtime.plugins import find_plugin, plugin_names
from detect.safety.metadata import read_metadata
from detect.safety.untrusted import AllocationLimit, check_tensors, values_of

FORMAT = "detect-checkpoint"
FORMAT_VERSION = 1
_SPARE = 64
"""Factor by which the values made while a model is built may exceed those of its file: BDSC's and depthwise
convolutions replace ordinary ones, which have up to k * k times as many."""
_NOT_OURS = (
    "is not a checkpoint of this toolkit; detect train writes them, "
    "and detect import converts the weights of YOLOv5, YOLOX, Darknet and torchvision"
)


class Extra(Protocol):
    """A paper's entry in a checkpoint: plain values and tensors, which a plug-in (``extras``) reads into the model."""

    def to_plain(self, model: Model) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Checkpoint:
    """Contents of a checkpoint.

    Args:
        model: with its weights; after ``load_checkpoint`` in evaluation mode, float32 on the CPU.
        names: K class names.
        category_ids: K ids of the annotation file.
        image_size: side of the training images in pixels.
        metrics: validation metrics of these weights.
        provenance: origin of the weights.
        training: state for resuming, or None.
        center_crop: of a classifier: share of an image's short side that its evaluation crops.
        extras: papers' entries by name; the model has them already.
        value_range: for images with more than 8 bits a channel: the values that become 0 and 255. None: the high byte.
    """

    model: Model
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_size: int
    metrics: dict[str, float]
    provenance: dict[str, Any]
    training: dict[str, Any] | None = None
    center_crop: float = 1.0
    extras: Mapping[str, Extra] = field(default_factory=dict)
    value_range: tuple[float, float] | None = None

    @property
    def detector(self) -> DetectionModel:
        """The model as a detector; an ``InputError`` if it is a classifier."""
        if not isinstance(self.model, DetectionModel):
            raise InputError(f"{self.model.definition.name} is a classifier; here a detector is needed")
        return self.model

    @property
    def classifier(self) -> ClassificationModel:
        """The model as a classifier; an ``InputError`` if it is a detector."""
        if not isinstance(self.model, ClassificationModel):
            raise InputError(f"{self.model.definition.name} is a detector; here a classifier is needed")
        return self.model

    @property
    def is_of_scenes(self) -> bool:
        """True where the last training was on generated scenes, by its provenance."""
        settings = self.provenance.get("settings")
        data = settings.get("data") if isinstance(settings, dict) else None
        return isinstance(data, dict) and data.get("format") == "scenes"

    @property
    def tile_px(self) -> int:
        """Side of the tiles that the last training cut from its images, by its provenance; 0 without tiles."""
        found: Any = self.provenance
        for key in ("settings", "recipe", "tiles", "size_px"):
            found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, int) and found > 0 else 0


def save_checkpoint(path: Path, model: Model, **contents: Any) -> None:
    """Write a checkpoint atomically; ``contents`` are the other fields of ``Checkpoint``."""
    rewrite_checkpoint(path, Checkpoint(model, **contents))


def rewrite_checkpoint(path: Path, checkpoint: Checkpoint, half: bool = False) -> None:
    """Write a checkpoint atomically, as safetensors where ``path`` ends so.

    ``half`` stores the weights in half precision (``halve_state``).
    """
    content = _content(checkpoint, half)
    is_plain = path.suffix == SAFETENSORS.suffix
    data = checkpoint_bytes(content) if is_plain else _archive(content).getbuffer()
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def checkpoint_archive(checkpoint: Checkpoint) -> io.BytesIO:
    """Return a checkpoint's ``.pt`` file in memory; the plain network must be active."""
    return _archive(_content(checkpoint, half=False))


def _archive(content: dict[str, Any]) -> io.BytesIO:
    archive = io.BytesIO()  # on a full disk torch.save would raise a RuntimeError that hides the reason
    torch.save(content, archive)
    return archive


def _content(checkpoint: Checkpoint, half: bool) -> dict[str, Any]:
    model = checkpoint.model
    assert not model.graph.transform.fixed_sizes, "the state is the plain network's"
    state = model.state_dict()
    if checkpoint.training is None:
        state = pack_state(model, state)
    if half:
        state = halve_state(model, state)
    value_range, extras = checkpoint.value_range, checkpoint.extras
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "definition": definition_to_plain(model.definition),
        "names": list(checkpoint.names),
        "category_ids": [int(i) for i in checkpoint.category_ids],
        "image_size": int(checkpoint.image_size),
        "center_crop": float(checkpoint.center_crop),
        **({} if value_range is None else {"value_range": list(value_range)}),
        "metrics": {key: float(value) for key, value in checkpoint.metrics.items()},
        "provenance": checkpoint.provenance,
        "state_dict": {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()},
        "training": checkpoint.training,
        **{name: extras[name].to_plain(model) if name in extras else None for name in plugin_names("extras")},
    }


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
        facts = read_metadata(content, str(path))
        state = content["state_dict"]
        check_tensors(state, str(path))
        # The definition may be a stranger's: the model is no larger than its weights justify.
        with AllocationLimit(_SPARE * values_of(state)):
            model = empty_model(parse_definition(dict(content["definition"]), str(path)), len(facts.names))
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
        InputError: names or shapes differ (the message has the first three), a value is NaN or infinite, or a variance
            is negative.
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
        if kind_of(path) == SAFETENSORS and (plain := read_checkpoint(path)) is not None:
            return plain
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise unreadable(path, error) from None
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: holds Python objects, not only tensors and plain values; "
            "reading it could run code, so it is refused; "
            "detect import converts models of YOLOv5, YOLOX and torchvision without running any"
        ) from None
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, LookupError, ValueError, AttributeError):
        raise InputError(f"{path}: {_no_checkpoint(path)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: {_NOT_OURS}")
    return content


def _no_checkpoint(path: Path) -> str:
    kind = kind_of(path)
    if kind is not None and kind in (DARKNET, LEGACY, SAFETENSORS):
        return f"is {kind.text}, not a checkpoint of this toolkit; detect import makes one of it"
    return "is not a checkpoint, or is damaged"


def _check_archive(path: Path) -> None:
    """Refuse entries that expand when they are read, which PyTorch does not write, and wrong checksums.

    PyTorch ignores the checksums; a flipped bit would be another weight.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        grows = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if grows or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise InputError(f"{path}: has compressed or overlapping entries, which PyTorch does not write; refused")
        broken = archive.testzip()
    if broken:
        raise zipfile.BadZipFile(broken)
