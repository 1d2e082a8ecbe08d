"""Formats of exported files: their names, the files that belong together, and the module that opens each.

No runtime is imported before a file of its format is opened.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detect.errors import InputError

if TYPE_CHECKING:
    from detect.inference.network import InferenceNetwork

MAX_METADATA = 16 * 2**20
"""Bytes of a file with metadata; those of a thousand classes are a thousandth of it."""
DIGESTS = "sha256"
"""Key of the metadata: JSON of the SHA-256 of each other file, hexadecimal, by its suffix."""


@dataclass(frozen=True)
class Format:
    """A format of exported files.

    Args:
        name: as ``--format`` has it.
        title: name of its runtime in messages.
        suffix: of the file that a user names.
        beside: suffixes of the files that belong to it, which have its name otherwise.
        packages: modules of the runtime.
        extra: of setup.cfg, which installs them.
        module: has ``open_network(path, device)``.
        file_name: of an export without another one.
        layout: of the images that it takes: batch, channels, height and width in their order.
    """

    name: str
    title: str
    suffix: str
    beside: tuple[str, ...]
    packages: tuple[str, ...]
    extra: str
    module: str
    file_name: str
    layout: str = "NCHW"

    @property
    def version(self) -> str:
        """``format`` in the metadata."""
        return f"detect-{self.name}-1"

    def files(self, path: Path) -> list[Path]:
        """The file ``path`` and those that belong to it."""
        return [path, *(path.with_suffix(suffix) for suffix in self.beside)]

    def require(self, modules: Sequence[str], purpose: str) -> None:
        """Raise ``InputError`` unless modules can be imported; ``purpose`` is what needs them, for the message."""
        if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
            raise InputError(f"{purpose} needs {' and '.join(missing)}: pip install 'detect-small[{self.extra}]'")

    def open_network(self, path: Path, device: str) -> InferenceNetwork:
        """Open a file; ``InputError`` as of ``detect.inference.opening.open_network``."""
        if not path.exists():  # before a runtime is asked for, which may not be installed
            raise InputError(f"{path}: cannot be read: No such file or directory")
        network: InferenceNetwork = importlib.import_module(self.module).open_network(path, device)
        return network


ONNX = Format(
    name="onnx",
    title="ONNX Runtime",
    suffix=".onnx",
    beside=(),
    packages=("onnxruntime",),
    extra="export",
    module="detect.inference.runtimes.instance_files",
    file_name="model.onnx",
)
OPENVINO = Format(
    name="openvino",
    title="OpenVINO",
    suffix=".xml",
    beside=(".bin",),
    packages=("openvino",),
    extra="openvino",
    module="detect.inference.runtimes.openvino",
    file_name="model.xml",
)
NCNN = Format(
    name="ncnn",
    title="ncnn",
    suffix=".param",
    beside=(".bin", ".json"),
    packages=("ncnn",),
    extra="ncnn",
    module="detect.inference.runtimes.ncnn",
    file_name="model.ncnn.param",
)
LITERT = Format(
    name="litert",
    title="LiteRT",
    suffix=".tflite",
    beside=(),
    packages=("ai_edge_litert",),
    extra="litert",
    module="detect.inference.runtimes.litert",
    file_name="model.tflite",
    layout="NHWC",
)
FORMATS = {one.name: one for one in (ONNX, OPENVINO, NCNN, LITERT)}


def format_of(weights: str | Path) -> Format | None:
    """The format of an exported file by its suffix; ONNX for a folder of instances; None for anything else."""
    path = Path(weights)
    if path.is_dir():
        return ONNX if any(path.glob(f"*{ONNX.suffix}")) else None
    suffix = path.suffix.lower()
    return next((one for one in FORMATS.values() if one.suffix == suffix), None)


def num_bytes(path: Path) -> int:
    """Bytes of a checkpoint, or of an exported file with the files that belong to it."""
    found = format_of(path)
    return sum(one.stat().st_size for one in ([path] if found is None else found.files(path)))


def check_cpu(path: Path, device: str, title: str) -> None:
    """Raise ``InputError`` unless ``device`` is the CPU, or ``auto``."""
    if device not in ("auto", "cpu"):
        raise InputError(f"{path}: {title} runs on the CPU here, found --device {device}; take cpu")


def digests(path: Path, suffixes: Sequence[str]) -> str:
    """Text for ``DIGESTS``: of the files beside ``path`` with these suffixes."""
    return json.dumps({suffix: _digest(path.with_suffix(suffix)) for suffix in suffixes})


def check_digests(path: Path, suffixes: Sequence[str], metadata: dict[str, str]) -> None:
    """Raise ``InputError`` where files beside ``path`` are not those of its export."""
    for suffix in suffixes:
        beside = path.with_suffix(suffix)
        try:
            is_same = _digest(beside) == json.loads(metadata.get(DIGESTS, "{}")).get(suffix)
        except OSError as error:
            raise InputError(f"{beside}: cannot be read ({error.strerror or error}); {path.name} needs it") from None
        except (ValueError, AttributeError, RecursionError):
            is_same = False
        if not is_same:
            raise InputError(f"{beside}: is cut off, damaged or of another export than {path.name}; export it again")


def metadata_text(metadata: dict[str, str]) -> str:
    """The metadata as a JSON file, lists and objects as such rather than as texts."""
    content = {key: json.loads(value) if value[:1] in ("[", "{") else value for key, value in metadata.items()}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def read_metadata_file(path: Path, model: Path) -> dict[str, str]:
    """Read what ``metadata_text`` gave; ``InputError`` where a file is none, ``model`` is the one it is of."""
    try:
        with path.open("rb") as file:
            return parse_metadata(file.read(MAX_METADATA), path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {model.name} needs it") from None


def parse_metadata(content: bytes, path: Path) -> dict[str, str]:
    """Metadata of the content of a JSON file; ``InputError``, which names ``path``, where it is none."""
    try:
        found = json.loads(content)
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}
    except (ValueError, AttributeError, RecursionError):
        raise InputError(f"{path}: its metadata are damaged; export it again") from None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
