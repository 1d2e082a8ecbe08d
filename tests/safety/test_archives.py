from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from detect.errors import InputError
from detect.safety import archives
from detect.safety.archives import MAX_UNPACKED, read_members
from tests.data.cifar_files import write_archive

WANTED = frozenset(("a", "b"))
FILES = {"a": bytes(range(256)) * 2, "b": b"", "c": b"unwanted"}


def test_nothing_wanted_is_there(tmp_path: Path) -> None:
    assert read_members(tmp_path, WANTED) == {}
    assert read_members(write_archive(tmp_path / "x", {"c": b""}), WANTED) == {}


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_wanted_files_are_read(tmp_path: Path, mode: str) -> None:
    assert read_members(write_archive(tmp_path / "x", FILES, mode), WANTED) == {"a": FILES["a"], "b": b""}


def test_a_folder_is_read_itself(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a").write_bytes(b"no")
    (tmp_path / "b").write_bytes(b"yes")
    assert read_members(tmp_path, WANTED) == {"b": b"yes"}


def test_what_leads_out_of_the_archive_is_only_a_name(tmp_path: Path) -> None:
    """A member is known by its last name, links are none, and nothing is written."""
    path = tmp_path / "x"
    with tarfile.open(path, "w") as archive:
        climbing = tarfile.TarInfo("../../a")
        climbing.size = 3
        archive.addfile(climbing, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("b")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert read_members(path, WANTED) == {"a": b"abc"}
    assert list(tmp_path.iterdir()) == [path]


def test_two_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("one/a"))
        archive.addfile(tarfile.TarInfo("two/a"))
    with pytest.raises(InputError, match=r"x: has two files called a"):
        read_members(path, WANTED)


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x1f\x8b", gzip.compress(b"text", mtime=0), b"PK\3\4" + bytes(600)]
)
def test_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match=r"x: is no tar archive, or damaged \(.+\); download it again"):
        read_members(tmp_path / "x", WANTED)


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_truncations(tmp_path: Path, mode: str) -> None:
    """Of a plain archive, what lies behind the last file is padding."""
    path = write_archive(tmp_path / "x", FILES, mode)
    data = path.read_bytes()
    whole = read_members(path, WANTED)
    for end in range(0, len(data), 3 if mode == "w:gz" else 97):
        path.write_bytes(data[:end])
        try:
            found = read_members(path, WANTED)
        except InputError:
            continue
        assert mode == "w:"
        assert all(whole[name] == content for name, content in found.items())


def test_flipped_bytes_of_a_compressed_archive(tmp_path: Path) -> None:
    """The checksum finds what the format does not; only the header's time, name and the like are free."""
    path = write_archive(tmp_path / "x", FILES)
    data = path.read_bytes()
    whole = read_members(path, WANTED)
    for position in range(0, len(data), 2):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])
        try:
            assert read_members(path, WANTED) == whole
        except InputError:
            continue
        assert position < 12


def test_flipped_bytes_of_a_header(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x", FILES, "w:")
    data = path.read_bytes()
    for position in range(512, 512 + 265, 2):  # the second header, of the file a
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x81]) + data[position + 1 :])
        try:
            read_members(path, WANTED)
        except InputError:
            continue


def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_archive(tmp_path / "x", {"c": bytes(2**20)})
    assert path.stat().st_size < 2**12
    monkeypatch.setattr(archives, "MAX_UNPACKED", 2**19)
    with pytest.raises(InputError, match=r"x: holds more than 0 MiB; refused"):
        read_members(path, WANTED)


def test_a_sparse_bomb(tmp_path: Path) -> None:
    """A file of zeros that are not in the archive: 1 TiB in a few bytes (pax, GNU.sparse 1.0)."""
    path = tmp_path / "x"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a")
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a"}
        member.pax_headers["GNU.sparse.realsize"] = str(2**40)
        content = b"0\n".ljust(512, b"\0")  # a map without any data
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    with pytest.raises(InputError, match=rf"x: a is larger than {MAX_UNPACKED // 2**20} MiB; refused"):
        read_members(path, WANTED)


def test_too_many_members(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x", {str(number): b"" for number in range(1000)})  # and their folder
    with pytest.raises(InputError, match=r"x: has more than 1000 files; refused"):
        read_members(path, WANTED)


def test_a_large_file_in_a_folder(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(MAX_UNPACKED + 1)  # sparse: it takes no space
    with pytest.raises(InputError, match=r"a: is larger than 512 MiB"):
        read_members(tmp_path, WANTED)
