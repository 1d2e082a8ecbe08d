"""Export of several instances of a network (SDPoint) into one folder, whose files share their weights.

Instances differ in their norms' statistics. A fused norm would make every convolution behind a point another one;
written beside it, as a factor and a summand of each channel, it leaves the kernels of all instances the same. Runtimes
fuse it when they load a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import onnx

from detect.analysis.profile import MacCounter
from detect.data.annotations import AnnotationTable
from detect.errors import InputError
from detect.exporting.onnx import check_export, write_graph
from detect.exporting.options import ExportOptions
from detect.exporting.parity import ExportError, Parity, compare_file
from detect.inference.inputs import checked_size
from detect.inference.instances import PLAIN_NAME, InstanceEntry, InstanceMenu
from detect.inference.runtimes.instance_files import TABLE, InstanceTable, networks_ms
from detect.inference.runtimes.onnx_runtime import OnnxNetwork
from detect.models.checkpoint import Checkpoint
from detect.models.model import affine_norms
from detect.runtime.files import atomic_folder
from detect.runtime.plugins import require_plugin
from detect.safety.onnx_files import DIGEST

WEIGHTS = "weights.bin"
MIN_BYTES = 1024
"""Smaller weights stay in the file of their instance."""
ALIGNMENT = 64
"""Bytes; each array begins at a multiple."""
ALL = "all"


class ExportedInstance(NamedTuple):
    """An exported instance.

    Args:
        entry: its cost, with the milliseconds of ONNX Runtime here.
        file: name of its file.
        parity: its distance from PyTorch.
    """

    entry: InstanceEntry
    file: str
    parity: Parity


def export_instances(
    checkpoint: Checkpoint,
    folder: Path,
    names: Sequence[str],
    options: ExportOptions,
    table: AnnotationTable | None = None,
) -> list[ExportedInstance]:
    """Write instances of a checkpoint as ONNX, each for one square image, and compare each with PyTorch.

    Args:
        checkpoint: with measured instances; afterwards its plain network is active.
        folder: of the files; new or empty. It is left alone unless all files pass the comparison.
        names: of the instances, or ``all``: those on a Pareto front by multiply-adds or by milliseconds. The plain
            network is always among them.
        options: the kind of file; not ``dynamic``, and without packed masks.
        table: a labelled split on which a detector's AP is compared as well.

    Raises:
        InputError: nothing was measured, a name is unknown, the folder is not empty, or an option is not possible.
        ExportError: an exported graph is not its instance.
    """
    if options.dynamic or options.masks == "packed":
        raise InputError("--instances: files of one square image, with ordinary weights; no --dynamic, no packed masks")
    menu: InstanceMenu = require_plugin("instance_exports", "menu", "--instances")(checkpoint)
    activate = require_plugin("instance_exports", "activate", "--instances")
    chosen = [menu.entry(name) for name in _chosen(menu, names)]
    size = checked_size(options.image_size or checkpoint.image_size, checkpoint.model.max_reduction)
    checkpoint = replace(checkpoint, image_size=size)
    with atomic_folder(folder) as building:
        entries, weights = [], _SharedWeights(building / WEIGHTS)
        for entry in chosen:
            instance: Checkpoint = activate(checkpoint, entry.name)
            entries.append(replace(entry, macs=_macs(instance)))
            _write(instance, building / _file_name(entry), _sized(options, instance), weights)
        entries = _finish(building, replace(menu, entries=tuple(entries)), size, weights.close())
        found = []
        for entry in entries:
            instance = activate(checkpoint, entry.name)
            parity = compare_file(instance, building / _file_name(entry), _sized(options, instance), table)
            if not parity.good:
                raise ExportError(f"{folder}: not written, because {entry.name} differs: {parity.line()}")
            found.append(ExportedInstance(entry, _file_name(entry), parity))
        activate(checkpoint, PLAIN_NAME)
    return found


def _finish(folder: Path, menu: InstanceMenu, image_size: int, digest: str) -> list[InstanceEntry]:
    """Time the files of a menu in ONNX Runtime and add the table to each; returns the entries with their times."""
    paths = [folder / _file_name(entry) for entry in menu.entries]
    for path in paths:  # without it no file is opened
        _add_metadata(path, {DIGEST: digest})
    times = networks_ms([OnnxNetwork(path, "cpu") for path in paths])
    entries = [replace(entry, ms=ms) for entry, ms in zip(menu.entries, times, strict=True)]
    files = {entry.name: path.name for entry, path in zip(entries, paths, strict=True)}
    table = InstanceTable(replace(menu, entries=tuple(entries)), files, image_size)
    for path in paths:
        _add_metadata(path, {TABLE: table.to_json()})
    return entries


def _chosen(menu: InstanceMenu, names: Sequence[str]) -> list[str]:
    """Names of the menu, in its order, with the plain network."""
    wanted = {PLAIN_NAME, *(menu.entry(name).name for name in names if name != ALL)}
    if ALL in names:
        wanted |= {entry.name for entry in (*menu.front_macs, *menu.front_ms)}
    return [entry.name for entry in menu.entries if entry.name in wanted]


def _file_name(entry: InstanceEntry) -> str:
    return f"{entry.name.replace('*', 'x')}.onnx"  # not every system allows a star


def _sized(options: ExportOptions, instance: Checkpoint) -> ExportOptions:
    return replace(options, image_size=instance.image_size)


def _macs(instance: Checkpoint) -> int:
    graph, size = instance.model.graph, instance.image_size
    return MacCounter(graph, instance.model.num_classes).macs(graph.transform, (size, size))


def _write(instance: Checkpoint, path: Path, options: ExportOptions, weights: _SharedWeights) -> None:
    check_export(instance.model, options)
    write_graph(affine_norms(instance.model), path, instance, options)
    model = onnx.load(path)
    weights.take(model)
    onnx.save(model, path)


def _add_metadata(path: Path, entries: dict[str, str]) -> None:
    model = onnx.load(path, load_external_data=False)
    known = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, known | entries)
    onnx.save(model, path)


class _SharedWeights:
    """A file of arrays, each of which is in it once.

    Args:
        path: of the file, which is written on ``close``.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._content = path, bytearray()
        self._places: dict[bytes, int] = {}

    def take(self, model: onnx.ModelProto) -> None:
        """Move the weights of a model into the file, in place."""
        for tensor in model.graph.initializer:
            content = onnx.numpy_helper.to_array(tensor).tobytes()
            if len(content) < MIN_BYTES:
                continue
            tensor.raw_data = content
            onnx.external_data_helper.set_external_data(tensor, WEIGHTS, self._place(content), len(content))
            tensor.ClearField("raw_data")

    def close(self) -> str:
        """Write the file, and return its SHA-256, hexadecimal."""
        self._path.write_bytes(self._content)
        return hashlib.sha256(self._content).hexdigest()

    def _place(self, content: bytes) -> int:
        key = hashlib.sha256(content).digest()
        if key not in self._places:
            self._content += bytes(-len(self._content) % ALIGNMENT)
            self._places[key] = len(self._content)
            self._content += content
        return self._places[key]
