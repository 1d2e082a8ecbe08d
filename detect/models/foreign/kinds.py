"""Recognition of weights files by their first bytes."""

from __future__ import annotations

import codecs
import struct
from dataclasses import dataclass
from pathlib import Path

DARKNET_VERSION = struct.Struct("<3i")
"""Major, minor, revision: the first bytes of a Darknet weights file."""
_HEAD = 512
_LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
"""Start of files of PyTorch before 1.6, or with ``_use_new_zipfile_serialization=False``."""
_LONGEST_SAFETENSORS_HEADER = 100_000_000
"""Bytes, a limit of the format."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        text: its description, behind "it is" in messages.
        suffix: the suffix with which ``detect import`` reads it, or "".
    """

    text: str
    suffix: str = ""

    def __str__(self) -> str:
        return self.text + (f"; name it with {self.suffix} at its end" if self.suffix else "")


EMPTY = Kind("empty")
ARCHIVE = Kind("an archive, as PyTorch writes it", ".pt")
LEGACY = Kind("a file of PyTorch before 1.6")
SAFETENSORS = Kind("a safetensors file", ".safetensors")
DARKNET = Kind("a Darknet weights file", ".weights")
ONNX = Kind("an ONNX file", ".onnx")


def kind_of(path: Path) -> Kind | None:
    """The kind of a file by its first bytes, or None; the rest may be damaged.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return EMPTY
    if head.startswith(b"PK\x03\x04"):
        return ARCHIVE
    if head[:1] == b"\x80" and _LEGACY_MAGIC in head[:16]:
        return LEGACY
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_SAFETENSORS_HEADER:
        return SAFETENSORS
    if len(head) >= DARKNET_VERSION.size and is_darknet_version(DARKNET_VERSION.unpack_from(head)):
        return DARKNET
    if _is_onnx(head):
        return ONNX
    line = _first_line(head)
    return None if line is None else Kind(f"a text file that starts with {line[:50]!r}")


def is_darknet_version(version: tuple[int, ...]) -> bool:
    """True for a version of Darknet: 0.1.0, 0.2.0 and 0.2.5 are known."""
    major, minor, revision = version
    return major == 0 and minor in (1, 2) and 0 <= revision < 100


def _is_onnx(head: bytes) -> bool:
    """True where the bytes begin with the fields of an ONNX model: its version, and then its producer or its graph."""
    return head[:1] == b"\x08" and b"\x01" <= head[1:2] < b"\x80" and head[2:3] in (b"\x12", b"\x3a")


def _first_line(head: bytes) -> str | None:
    """The first line that is not blank, or None if the bytes are no UTF-8 text; they may end inside a character."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return None
    if not all(character.isprintable() or character in "\t\r\n\f" for character in text):
        return None
    return (text.strip().splitlines() or [""])[0]
