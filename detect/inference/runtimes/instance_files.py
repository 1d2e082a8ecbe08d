"""Exported instances of one network: ONNX files in a folder that share their weights, and the table in their metadata.

PyTorch is not used.
"""

from __future__ import annotations

import json
import math
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detect.errors import InputError
from detect.inference.instances import PLAIN_NAME, Budget, Choice, InstanceEntry, InstanceMenu
from detect.inference.runtimes.onnx_runtime import OnnxNetwork
from detect.inference.timing import median_ms
from detect.safety.metadata import MAX_SIDE
from detect.safety.onnx_files import is_plain_name, read_onnx

TABLE = "instances"
"""Key of the table in the metadata."""
MAX_ENTRIES = 1000
GREY = 128


class InstanceTable(NamedTuple):
    """The instances of a folder.

    Args:
        menu: their costs and metrics.
        files: name of each one's file.
        image_size: of the full network.
    """

    menu: InstanceMenu
    files: dict[str, str]
    image_size: int

    def to_json(self) -> str:
        """Text for the metadata."""
        entries = [{**vars(entry), "file": self.files[entry.name]} for entry in self.menu.entries]
        facts = {"metric": self.menu.metric, "measured": self.menu.measured, "image_size": self.image_size}
        return json.dumps({**facts, "entries": entries}, allow_nan=False)


def read_table(text: str, path: Path) -> InstanceTable:
    """Read and check the table of a file; an ``InputError`` for anything that ``to_json`` does not write."""
    try:
        content = json.loads(text)
        size = int(content["image_size"])
        entries = [_entry(values) for values in content["entries"]]
        files = {entry.name: str(values["file"]) for entry, values in zip(entries, content["entries"], strict=True)}
        menu = InstanceMenu(tuple(entries), str(content["metric"]), str(content["measured"]))
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise InputError(f"{path}: its table of instances is damaged ({error}); export it again") from None
    is_whole = 0 < len(files) == len(entries) <= MAX_ENTRIES and entries[0].name == PLAIN_NAME
    if not is_whole or not 0 < size <= MAX_SIDE or not all(is_plain_name(name) for name in files.values()):
        raise InputError(f"{path}: its table of instances is damaged; export it again")
    return InstanceTable(menu, files, size)


def _entry(values: dict[str, Any]) -> InstanceEntry:
    macs, numbers = int(values["macs"]), [float(values[key]) for key in ("cost", "ms", "metric")]
    if macs <= 0 or not all(math.isfinite(number) for number in numbers) or min(numbers[:2]) <= 0:
        raise ValueError(f"{values}")
    return InstanceEntry(str(values["name"]), numbers[0], macs, *numbers[1:])


def open_network(path: Path, device: str) -> OnnxNetwork | InstanceFiles:
    """Open a file that ``detect export`` wrote, or a folder of instances, whose full network is in use then."""
    if path.is_dir():
        table = _table_in(path)
        path = path / table.files[PLAIN_NAME]
    network = OnnxNetwork(path, device)
    text = network.metadata.get(TABLE)
    return network if text is None else InstanceFiles(network, read_table(text, path))


def _table_in(folder: Path) -> InstanceTable:
    """The table in the first file of a folder that has one."""
    for path in sorted(folder.glob("*.onnx")):
        text = read_onnx(path).metadata.get(TABLE)
        if text is not None:
            return read_table(text, path)
    raise InputError(
        f"{folder}: no .onnx file in it has a table of instances, which detect export --instances writes; name a file"
    )


class InstanceFiles:
    """A network whose instances are files of one folder; see ``detect.inference.network.InferenceNetwork``.

    Args:
        network: of the file that is in use first; others are opened on use.
        table: of its metadata.
    """

    def __init__(self, network: OnnxNetwork, table: InstanceTable) -> None:
        self._table, self._networks = table, {network.instance: network}
        self._folder = network.path.parent
        self.device_name, self.is_classifier = network.device_name, network.is_classifier
        self.name, self.names, self.category_ids = network.name, network.names, network.category_ids
        self.multiple, self.max_detections = network.multiple, network.max_detections
        self.center_crop, self.value_range = network.center_crop, network.value_range
        self.tile_px = network.tile_px
        self._active = network
        self.use(network.instance)

    @property
    def cost(self) -> float:
        return self._table.menu.entry(self._active.instance).cost

    def menu(self) -> InstanceMenu:
        return self._table.menu

    def use(self, name: str) -> None:
        """See ``InferenceNetwork``; the first use of an instance opens its file."""
        self._table.menu.entry(name)
        if name not in self._networks:
            self._networks[name] = self._open(name)
        self._active = self._networks[name]
        self.image_size = self._active.image_size

    def choose(self, budget: Budget) -> Choice:
        self.check_size(budget.image_size)
        choice = self._table.menu.choose(budget, self._table.image_size, self._gflops, self._ms)
        self.use(choice.name)
        return choice

    def multiply_adds(self, network_hw: tuple[int, int]) -> int:
        return self._table.menu.entry(self._active.instance).macs  # of its only size

    def check_size(self, image_size: int | None) -> int:
        size = self._table.image_size
        if image_size not in (None, size):
            raise InputError(f"image size: {self._folder} takes {size} only, found {image_size}")
        return self._active.image_size

    def padded_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        return self._active.padded_hw(image_hw)

    def predictions(self, images: np.ndarray) -> np.ndarray:
        return self._active.predictions(images)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        return self._active.probabilities(images)

    def _open(self, name: str) -> OnnxNetwork:
        network = OnnxNetwork(self._folder / self._table.files[name], self.device_name)
        if network.instance != name or any(getattr(network, key) != getattr(self, key) for key in _SHARED):
            raise InputError(f"{network.path}: is not the instance {name} of {self.name}; export the folder again")
        return network

    def _gflops(self, name: str) -> float:
        return 2e-9 * self._table.menu.entry(name).macs

    def _ms(self, name: str) -> float:
        if name not in self._networks:
            self._networks[name] = self._open(name)
        return networks_ms([self._networks[name]])[0]


_SHARED = ("name", "names", "category_ids", "multiple", "is_classifier", "max_detections", "center_crop", "value_range")
"""Facts that all instances have in common."""


def networks_ms(networks: list[OnnxNetwork]) -> list[float]:
    """Milliseconds of each network for a grey square image of its size, as ``median_ms`` measures them."""
    return median_ms([partial(_seconds, network) for network in networks])


def _seconds(network: OnnxNetwork) -> float:
    image = np.full((1, network.image_size, network.image_size, 3), GREY, np.uint8)
    start = time.perf_counter()
    (network.probabilities if network.is_classifier else network.predictions)(image)
    return time.perf_counter() - start
