"""The files of onnxruntime-web that a page needs, from the npm package as ``npm pack`` or ``npm install`` leaves it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from detect.errors import InputError
from detect.safety.archives import read_members

PACKAGE = "onnxruntime-web"
SCRIPT, BINARY = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
"""The loader for the processor, which is also the program of its threads, and the runtime itself. The package's other
files are for GPUs, for bundlers, and for reading."""
_MANIFEST = "package.json"
OLDEST = (1, 23)
"""Oldest version: in 1.21 and 1.22 ``SCRIPT`` asks for a further file, and older ones lack it. 1.30 was tried too."""
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})\.\d{1,4}[\w.+-]{0,40}")
_HOW = f"`npm pack {PACKAGE}` writes it: --runtime {PACKAGE}-VERSION.tgz"


class WebRuntime(NamedTuple):
    """The runtime.

    Args:
        version: of the package.
        script: content of ``SCRIPT``.
        binary: content of ``BINARY``.
    """

    version: str
    script: bytes
    binary: bytes


def read_runtime(path: Path | None) -> WebRuntime:
    """Read the runtime from the package's folder or ``.tgz``; nothing is unpacked to the disk.

    Raises:
        InputError: no package is named, it is another one, damaged, or so old that its files have other names.
    """
    if path is None:
        raise InputError(f"--format web: needs the npm package {PACKAGE}, whose runtime goes into the folder; {_HOW}")
    if not path.exists():
        raise InputError(f"--runtime {path}: does not exist; {_HOW}")
    wanted = frozenset({_MANIFEST, SCRIPT, BINARY})
    files = read_members(path, wanted)
    version = _version(files.get(_MANIFEST, b"{}"), path)
    if (path / "dist").is_dir():
        files = read_members(path / "dist", wanted)
    if missing := [name for name in (SCRIPT, BINARY) if not files.get(name)]:
        raise InputError(f"--runtime {path}: {PACKAGE} {version} has no dist/{missing[0]}; 1.30.0 has it")
    return WebRuntime(version, files[SCRIPT], files[BINARY])


def _version(manifest: bytes, path: Path) -> str:
    try:
        content = json.loads(manifest)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("name") != PACKAGE:
        raise InputError(f"--runtime {path}: is not the npm package {PACKAGE}; {_HOW}")
    version = content.get("version")
    found = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        raise InputError(f"--runtime {path}: {PACKAGE}: must be of version 1.23 or newer, found {version!r}")
    return found[0]
