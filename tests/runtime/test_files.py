"""A reader sees the old file or the new one, never half of one, and a failure leaves nothing behind."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from detect.errors import InputError
from detect.runtime.files import atomic_path, new_folder, write_json, write_text


def names(folder: Path) -> list[str]:
    """What is in the folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def test_writes_and_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    assert names(path.parent) == ["file.txt"]


def test_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "long before")
    write_text(path, "new")
    assert path.read_text() == "new"


def test_the_temporary_path_is_beside_and_has_the_suffix(tmp_path: Path) -> None:
    """Beside, so that the rename stays on one file system; the suffix, because writers choose formats by it."""
    path = tmp_path / "picture.jpg"
    with atomic_path(path) as temporary:
        assert temporary != path
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".jpg")
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"


def test_an_exception_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path, umask: int, mode: int) -> None:
    """``mkstemp`` makes files that only their owner can read; what is shared in a group must stay readable."""
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == mode


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with atomic_path(path) as first, atomic_path(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last
    assert names(tmp_path) == ["file.txt"]


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        write_text(tmp_path / "file" / "inside.txt", "x")


FILL_THE_DISK = """
import resource, signal, sys
from pathlib import Path
from detect.runtime.cli import run_tool
from detect.runtime.files import write_text

# A limit on the size of files ends a write in the middle, as a full disk does.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
run_tool(lambda: write_text(Path(sys.argv[1]), "n" * 100_000))
"""


def test_a_write_that_fails_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    command = [sys.executable, "-B", "-c", FILL_THE_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(": File too large\n")
    assert done.stderr.count("\n") == 1
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("content", [{}, [], {"é": [1, 2.5, None, True]}, {"a": {"b": "\n"}}])
def test_json(tmp_path: Path, content: object) -> None:
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert json.loads(text) == content


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_json_has_no_nan(tmp_path: Path, number: float) -> None:
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        write_json(tmp_path / "a.json", {"AP": number})
    assert (tmp_path / "a.json").read_text() == "old"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no folder that nobody can write to")
def test_a_folder_that_takes_no_file() -> None:
    """The error names the file that was wanted, not the temporary one."""
    path = Path("/proc/self/result.json")
    with pytest.raises(OSError, match="result") as caught, atomic_path(path):
        raise AssertionError("there is nothing to write to")
    assert caught.value.filename == str(path)


# -------------------------------------------------------------------------------------------- new_folder


def test_a_new_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "new"
    with new_folder(path) as building:
        (building / "a").write_text("1")
        assert not path.exists()
    assert (path / "a").read_text() == "1"
    assert path.stat().st_mode & 0o777 == 0o777 & ~_current_umask()
    assert [one.name for one in path.parent.iterdir()] == ["new"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("x")])
def test_a_new_folder_vanishes_when_something_goes_wrong(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "new") as building:
            (building / "a").write_text("1")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert not list(tmp_path.iterdir())


def test_errors_name_the_new_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught, new_folder(tmp_path / "new") as building:
        (building / "none" / "a").write_text("1")
    assert caught.value.filename == str(tmp_path / "new")
    with pytest.raises(OSError, match="No such file") as caught, new_folder(tmp_path / "new"):
        (tmp_path / "source").read_text()
    assert caught.value.filename == str(tmp_path / "source")


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("mine")
    for name in ("file", "full"):
        message = f"{name}: exists already and is not an empty folder; name a new one"
        with pytest.raises(InputError, match=message), new_folder(tmp_path / name):
            pytest.fail("must not begin")
    (tmp_path / "void").mkdir()
    with new_folder(tmp_path / "void") as building:
        (building / "a").write_text("1")
    assert (tmp_path / "void" / "a").is_file()


def _current_umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
