"""Index of the tar files of a split in WebDataset's layout, read with distrust and cached in a file.

A sample is consecutive files with the same name but for the suffix: ``000017.jpg``, ``000017.json``. The name ends at
its first dot. The tar files are read once, header by header; the index is kept in a JSON file beside them, which is
valid until a size or a date changes.

Letters: F tar files.

Source: the WebDataset format, https://github.com/webdataset/webdataset, section "The WebDataset Format".
"""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from detect.data.annotations import Problems
from detect.data.formats.shard_images import OpenFile, Span
from detect.data.images import IMAGE_SUFFIXES, MAX_FILE_BYTES, ImageError, ImageHeader, header_of
from detect.errors import InputError, unreadable
from detect.runtime.files import write_text
from detect.runtime.logs import LOGGER
from detect.runtime.progress import progress_bar

DAMAGED = "shards that are damaged or end early (read up to there)"
BAD_MEMBER = "members of shards that are links, devices, sparse or oddly named (skipped)"
REPEATED = "members of shards whose sample has such a file already (skipped)"
TOO_LARGE = "members of shards that are larger than allowed (skipped)"
NO_IMAGE = "samples of shards without an image (skipped)"
BAD_JSON = "samples of shards whose JSON is not a mapping that can be read (skipped)"

MAX_JSON_BYTES = 2**24  # of one image's annotations; COCO's largest, with all polygons, has 0.1 MB
MAX_HEADER_BYTES = 2**14  # of one tar header with its extensions, such as a long name
MAX_MEMBERS = 2_000_000  # of one shard; each costs memory, however small it is
MAX_INDEX_BYTES = 2 * 10**9
VERSION = 2  # of the index file; one of another version is written anew

_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ\x00": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_NUM_THREADS = 8  # they wait for the disk or the network
# Errors of tarfile on damage, found by truncating and mutating shards.
_DAMAGE = (tarfile.TarError, OSError, ValueError, IndexError, OverflowError, RecursionError, AttributeError, KeyError)


@dataclass(frozen=True)
class ShardSample:
    """An image in a shard.

    Args:
        name: with its suffix, as in the shard.
        offset: of its first byte in the shard.
        size: in bytes.
        height: after the EXIF orientation, in pixels; 0 if the image is damaged.
        width: as ``height``.
        orientation: of EXIF.
        damage: what is wrong with the image; empty if nothing is.
        document: the JSON beside it; None if there is none.
    """

    name: str
    offset: int
    size: int
    height: int
    width: int
    orientation: int
    damage: str
    document: dict[str, Any] | None

    @property
    def header(self) -> ImageHeader | ImageError:
        """The result of ``read_header``, or its error."""
        if self.damage:
            return ImageError(self.damage)
        return ImageHeader((self.height, self.width), self.orientation)


@dataclass(frozen=True)
class Shard:
    """A tar file.

    Args:
        samples: its images, in its order.
        problems: as returned by ``Problems.found``.
    """

    samples: list[ShardSample]
    problems: list[tuple[str, int, Sequence[str]]]


def open_index(files: Sequence[Path], index: Path, title: str) -> list[Shard]:
    """Load the index of tar files, or build it by reading them.

    Args:
        files: F tar files.
        index: the index file; it is written if its folder allows.
        title: of the progress bar.

    Raises:
        InputError: a tar file is compressed, not a regular file, or cannot be read.
    """
    stamps = [_stamp(file) for file in files]
    remembered = _load(index, stamps)
    if remembered is not None:
        return remembered
    with (
        ThreadPoolExecutor(_NUM_THREADS) as pool,
        progress_bar(None, title, len(files), is_shown=len(files) >= _NUM_THREADS, unit=" shards") as bar,
    ):
        shards = []
        for shard in pool.map(read_shard, files):
            shards.append(shard)
            bar.update()
    content = {"version": VERSION, "stamps": stamps, "shards": [asdict(shard) for shard in shards]}
    try:
        write_text(index, json.dumps(content))
    except OSError as error:
        LOGGER.info("%s: cannot be written (%s), so the shards are read again next time", index, error.strerror)
    return shards


def _stamp(file: Path) -> list[Any]:
    try:
        status = file.stat()
    except OSError as error:
        raise unreadable(file, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{file}: is not a file")
    return [file.name, status.st_size, status.st_mtime_ns]


def _load(index: Path, stamps: list[list[Any]]) -> list[Shard] | None:
    """Return the content of an index; None if it does not exist, belongs to other tar files, or is invalid."""
    try:
        if not index.is_file() or index.stat().st_size > MAX_INDEX_BYTES:
            return None
        content = json.loads(index.read_bytes())
        if content["version"] != VERSION or content["stamps"] != stamps:
            return None
        shards = [
            Shard([_checked(ShardSample(**sample), size) for sample in one["samples"]], _found(one["problems"]))
            for one, (_, size, _) in zip(content["shards"], stamps, strict=True)
        ]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return shards


def _checked(sample: ShardSample, file_size: int) -> ShardSample:
    """Validate a sample of an index, which may come from a stranger as the shards do."""
    numbers = (sample.offset, sample.size, sample.height, sample.width, sample.orientation)
    is_good = (
        all(type(number) is int and number >= 0 for number in numbers)
        and sample.size <= MAX_FILE_BYTES
        and sample.offset + sample.size <= file_size
        and max(sample.height, sample.width) < 2**31
        and _is_plain(sample.name)
        and isinstance(sample.damage, str)
        and isinstance(sample.document, dict | None)
    )
    if not is_good:
        raise ValueError("not a sample")
    return sample


def _found(problems: list[Any]) -> list[tuple[str, int, Sequence[str]]]:
    return [(str(kind), int(count), [str(example) for example in examples]) for kind, count, examples in problems]


# ------------------------------------------------------------------------------------------- one tar file


def read_shard(path: Path) -> Shard:
    """Read the index of a tar file.

    Raises:
        InputError: it is compressed, has too many files, or cannot be opened.
    """
    problems = Problems()
    try:
        file = OpenFile(path)
    except OSError as error:
        raise unreadable(path, error) from None
    samples: list[ShardSample] = []
    parts: dict[str, tuple[int, int]] = {}
    key: str | None = None
    for name, offset, size in _members(path, problems):
        own, suffix = _split(name)
        if own != key:
            samples += _sample(path, file, parts, problems)
            key, parts = own, {}
        if suffix != ".json" and suffix not in IMAGE_SUFFIXES:
            continue
        if suffix in {_split(other)[1] for other in parts}:
            problems.add(REPEATED, f"{name!r} in {path.name}")
        elif size > (MAX_JSON_BYTES if suffix == ".json" else MAX_FILE_BYTES):
            problems.add(TOO_LARGE, f"{name!r} in {path.name} has {size} bytes")
        else:
            parts[name] = (offset, size)
    samples += _sample(path, file, parts, problems)
    return Shard(samples, list(problems.found()))


def _split(name: str) -> tuple[str, str]:
    """Split a name at its first dot into the sample's key and the suffix in lower case."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return folder + slash + stem, dot + suffix.lower()


def _sample(path: Path, file: OpenFile, parts: dict[str, tuple[int, int]], problems: Problems) -> Iterator[ShardSample]:
    """Yield the sample of these files, if it is usable; of several images the first one."""
    documents = [name for name in parts if name.lower().endswith(".json")]
    images = [name for name in parts if name not in documents]
    document = None
    for name in documents:
        document = _parse(file.read(*parts[name]))
        if document is None:
            problems.add(BAD_JSON, f"{name!r} in {path.name}")
            return
        if not images:
            problems.add(NO_IMAGE, f"{name!r} in {path.name}")
    for name in images[:1]:
        offset, size = parts[name]
        size_hw, orientation, damage = (0, 0), 1, ""
        try:
            size_hw, orientation = header_of(io.BufferedReader(Span(file, offset, size)), f"{path}/{name}")
        except ImageError as error:
            damage = str(error)
        yield ShardSample(name, offset, size, *size_hw, orientation, damage, document)


def _parse(content: bytes) -> dict[str, Any] | None:
    """Parse a JSON mapping; None if it is none."""
    try:
        document = json.loads(content, object_hook=_slim)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _slim(item: dict[str, Any]) -> dict[str, Any]:
    """Drop outlines: they are most of COCO's annotations and not needed."""
    item.pop("segmentation", None)
    return item


class _Headers:
    """A file for ``tarfile`` that refuses to read more than a header at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _members(path: Path, problems: Problems) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size of each intact file in a tar file."""
    with path.open("rb") as file:
        _refuse_compressed(file, path)
        size = os.fstat(file.fileno()).st_size
        end = -1
        try:
            for member in _walk(file, path):
                end = member.offset_data + member.size
                if member.offset < 0 or member.size < 0 or end > size:
                    raise tarfile.ReadError(f"{member.name!r} is not whole")
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse() or not _is_plain(member.name):
                    problems.add(BAD_MEMBER, f"{member.name[:100]!r} in {path.name}")
                    continue
                yield member.name, member.offset_data, member.size
            file.seek(-(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE if end >= 0 else 0)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("the end mark is missing")
        except InputError:
            raise
        except _DAMAGE as error:
            problems.add(DAMAGED, f"{path.name}: {' '.join(str(error).split())[:100] or type(error).__name__}")


def _walk(file: IO[bytes], path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield all members; their offsets must grow, because damaged sizes make ``tarfile`` go back in an endless loop."""
    archive = tarfile.TarFile(fileobj=_Headers(file))  # type: ignore[arg-type]  # it needs read, seek, tell
    last = -1
    for number in range(MAX_MEMBERS + 1):
        member = archive.next()
        if member is None:
            return
        if number == MAX_MEMBERS:
            raise InputError(f"{path}: has more than {MAX_MEMBERS} files; refused")
        if member.offset <= last:
            raise tarfile.ReadError("its headers point backwards")
        last = member.offset
        archive.members.clear()  # type: ignore[attr-defined]  # else each stays in memory
        yield member


def _refuse_compressed(file: IO[bytes], path: Path) -> None:
    start = file.read(8)
    file.seek(0)
    for magic, program in _COMPRESSED.items():
        if start.startswith(magic):
            raise InputError(f"{path}: is compressed, and images in it cannot be found without unpacking: {program} it")


def _is_plain(name: Any) -> bool:
    """Tell whether a member's name is a printable relative path that leads nowhere else."""
    if not isinstance(name, str) or not name or len(name) > 255:
        return False
    parts = name.split("/")
    return name.isprintable() and not {"", ".."} & set(parts) and not PurePosixPath(name).name.startswith(".")
