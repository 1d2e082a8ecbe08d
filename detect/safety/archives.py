"""Single files of a folder or a tar archive, read into memory. Nothing is unpacked to the disk.

An archive is plain or compressed by gzip, with any name. Files are wanted by name without folders: in an archive a file
may be in any folder; a folder is read without those in it. An archive is refused if it is too large, or has two files
of a wanted name.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from detect.errors import InputError, unreadable

MAX_UNPACKED = 2**29
"""Maximum bytes of an archive's whole content, and of a single file; CIFAR has 186 MB."""

MAX_MEMBERS = 1000
"""Maximum files and folders of an archive; CIFAR's have ten. Each costs memory, even an empty one."""

_GZIP_START = b"\x1f\x8b"
# Exceptions of damaged archives, found by truncating and mutating one.
_DAMAGE = (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, IndexError, OverflowError)


def read_members(path: Path, wanted: frozenset[str]) -> dict[str, bytes]:
    """Return the content of the wanted files that exist, by name; ``InputError`` for a damaged or refused archive."""
    return _from_folder(path, wanted) if path.is_dir() else _from_archive(path, wanted)


def _from_folder(folder: Path, wanted: frozenset[str]) -> dict[str, bytes]:
    members = {}
    for path in sorted(folder / name for name in wanted):
        if not path.is_file():
            continue
        try:
            if path.stat().st_size > MAX_UNPACKED:
                raise InputError(f"{path}: is larger than {MAX_UNPACKED // 2**20} MiB")
            members[path.name] = path.read_bytes()
        except OSError as error:
            raise unreadable(path, error) from None
    return members


class _LimitedStream:
    """The unpacked archive as a stream; ``InputError`` beyond ``MAX_UNPACKED`` bytes."""

    def __init__(self, packed: IO[bytes], path: Path) -> None:
        is_gzip = packed.read(len(_GZIP_START)) == _GZIP_START
        packed.seek(0)
        self.file: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=packed) if is_gzip else packed
        self.path = path
        self.num_read = 0

    def read(self, size: int) -> bytes:
        content = self.file.read(size)
        self.num_read += len(content)
        if self.num_read > MAX_UNPACKED:
            raise InputError(f"{self.path}: holds more than {MAX_UNPACKED // 2**20} MiB; refused")
        return content


def _from_archive(path: Path, wanted: frozenset[str]) -> dict[str, bytes]:
    try:
        with path.open("rb") as packed:
            stream = _LimitedStream(packed, path)
            with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]  # needs only read()
                members = _read_wanted(archive, path, wanted)
            while stream.read(2**16):  # gzip's checksum is at the end
                pass
    except InputError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: is no tar archive, or damaged ({reason}); download it again") from None
    return members


def _read_wanted(archive: tarfile.TarFile, path: Path, wanted: frozenset[str]) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for number, member in enumerate(archive):
        if number == MAX_MEMBERS:
            raise InputError(f"{path}: has more than {MAX_MEMBERS} files; refused")
        name = PurePosixPath(member.name).name
        if name not in wanted or not member.isreg():
            continue
        if name in members:
            raise InputError(f"{path}: has two files called {name}")
        if member.size > MAX_UNPACKED:  # a sparse file: its zeros are not in the archive
            raise InputError(f"{path}: {name} is larger than {MAX_UNPACKED // 2**20} MiB; refused")
        file = archive.extractfile(member)
        assert file is not None  # it is a regular file
        members[name] = file.read()
        if len(members[name]) != member.size:
            raise InputError(f"{path}: {name} is truncated; download it again")
    return members
