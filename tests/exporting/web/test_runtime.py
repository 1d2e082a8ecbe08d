"""The files of onnxruntime-web that the page needs, from a folder or an archive; every other package is refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from detect.errors import InputError
from detect.exporting.web.runtime import BINARY, SCRIPT, read_runtime

FILES = {
    "package/package.json": json.dumps({"name": "onnxruntime-web", "version": "1.30.0"}).encode(),
    f"package/dist/{SCRIPT}": b"// script",
    f"package/dist/{BINARY}": b"\0asm",
    "package/dist/ort.all.min.js": b"// for GPUs",
}


def archive(path: Path, **changed: bytes | None) -> Path:
    """A package as npm packs it; ``changed`` has other contents by file name without folders, None for no file."""
    with tarfile.open(path, "w:gz") as file:
        for name, content in FILES.items():
            content = changed.get(Path(name).name.partition(".")[0], content)
            if content is not None:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                file.addfile(entry, io.BytesIO(content))
    return path


def test_folder_and_archive(tmp_path):
    path = archive(tmp_path / "onnxruntime-web-1.30.0.tgz")
    with tarfile.open(path) as file:
        file.extractall(tmp_path, filter="data")
    found = read_runtime(path)
    assert found == read_runtime(tmp_path / "package") == ("1.30.0", b"// script", b"\0asm")


def manifest(**content: object) -> bytes:
    return json.dumps({"name": "onnxruntime-web", "version": "1.30.0"} | content).encode()


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"package": manifest(name="onnxruntime-node")}, "is not the npm package onnxruntime-web; `npm pack "),
        ({"package": b"[]"}, "is not the npm package"),
        ({"package": b"{"}, "is not the npm package"),
        ({"package": None}, "is not the npm package"),
        ({"package": manifest(version=["1"])}, r"must be of version 1.23 or newer, found \['1'\]"),
        ({"package": manifest(version="1.30.0<b>")}, "must be of version 1.23 or newer, found '1.30.0<b>'"),
        ({"package": manifest(version="1.22.0")}, "must be of version 1.23 or newer, found '1.22.0'"),
        ({"ort": None}, "onnxruntime-web 1.30.0 has no dist/ort.wasm.bundle.min.mjs; 1.30.0 has it"),
        ({"ort-wasm-simd-threaded": b""}, "has no dist/ort-wasm-simd-threaded.wasm"),
    ],
)
def test_other_packages_are_refused(changed, line, tmp_path):
    with pytest.raises(InputError, match=line):
        read_runtime(archive(tmp_path / "some.tgz", **changed))


def test_what_is_no_package(tmp_path):
    with pytest.raises(InputError, match=r"needs the npm package onnxruntime-web.*npm pack onnxruntime-web.*--runtime"):
        read_runtime(None)
    with pytest.raises(InputError, match="does not exist; `npm pack"):
        read_runtime(tmp_path / "none.tgz")
    with pytest.raises(InputError, match="is not the npm package"):
        read_runtime(tmp_path)
    (tmp_path / "text.tgz").write_text("no archive")
    with pytest.raises(InputError, match="is no tar archive, or damaged"):
        read_runtime(tmp_path / "text.tgz")
