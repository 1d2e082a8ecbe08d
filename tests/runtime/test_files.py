"""A reader sees the old file or the new one, a failure leaves nothing behind, and a folder has one run at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from detect.errors import InputError
from detect.runtime.cli import run_tool
from detect.runtime.files import (
    LOCK_NAME,
    atomic_files,
    atomic_folder,
    atomic_path,
    locked_folder,
    make_unique_folder,
    write_json,
    write_text,
)

FORK = multiprocessing.get_context("fork")


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


def fill_the_disk(path: Path, output: Path) -> None:
    """Write a file in a process with a limit on the size of files, which ends a write in the middle as a full disk."""
    with output.open("w") as sys.stderr:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        run_tool(lambda: write_text(path, "n" * 100_000))


def test_a_write_that_fails_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    process = FORK.Process(target=fill_the_disk, args=(path, tmp_path / "errors"))
    process.start()
    process.join()
    assert process.exitcode == 2
    errors = (tmp_path / "errors").read_text()
    (tmp_path / "errors").unlink()
    assert re.fullmatch(r"error: .*: File too large\n", errors)
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


# ---------------------------------------------------------------------------------------- atomic_folder


def test_a_new_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "new"
    with atomic_folder(path) as building:
        (building / "a").write_text("1")
        assert not path.exists()
    assert (path / "a").read_text() == "1"
    assert path.stat().st_mode & 0o777 == 0o777 & ~_current_umask()
    assert [one.name for one in path.parent.iterdir()] == ["new"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("x")])
def test_a_new_folder_vanishes_when_something_goes_wrong(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "new") as building:
            (building / "a").write_text("1")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert not list(tmp_path.iterdir())


def test_errors_name_the_new_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught, atomic_folder(tmp_path / "new") as building:
        (building / "none" / "a").write_text("1")
    assert caught.value.filename == str(tmp_path / "new")
    with pytest.raises(OSError, match="No such file") as caught, atomic_folder(tmp_path / "new"):
        (tmp_path / "source").read_text()
    assert caught.value.filename == str(tmp_path / "source")


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("mine")
    for name in ("file", "full"):
        message = f"{name}: exists already and is not an empty folder; name a new one"
        with pytest.raises(InputError, match=message), atomic_folder(tmp_path / name):
            pytest.fail("must not begin")
    (tmp_path / "void").mkdir()
    with atomic_folder(tmp_path / "void") as building:
        (building / "a").write_text("1")
    assert (tmp_path / "void" / "a").is_file()


def _current_umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


# ---------------------------------------------------------------------------------------- locked_folder


def test_the_first_free_name(tmp_path):
    assert make_unique_folder(tmp_path / "runs/a") == tmp_path / "runs/a"
    (tmp_path / "runs/a-2").write_text("a file")
    assert make_unique_folder(tmp_path / "runs/a") == tmp_path / "runs/a-3"
    assert (tmp_path / "runs/a-3").is_dir()


def test_all_at_once(tmp_path):
    """Eight processes that start at one signal get eight folders."""
    start, answers = FORK.Event(), FORK.SimpleQueue()

    def ask() -> None:
        start.wait()
        answers.put(make_unique_folder(tmp_path / "run").name)

    processes = [FORK.Process(target=ask) for _ in range(8)]
    for process in processes:
        process.start()
    start.set()
    found = {answers.get() for _ in processes}
    for process in processes:
        process.join()
    assert found == {"run", *(f"run-{number}" for number in range(2, 9))}


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[int]:
    """The number of a process that holds a folder until it is killed."""
    held = FORK.Event()

    def hold() -> None:
        with locked_folder(folder):
            held.set()
            signal.pause()

    process = FORK.Process(target=hold)
    process.start()
    assert held.wait(30)
    yield process.pid
    process.kill()
    process.join()


def test_one_at_a_time(tmp_path):
    with (
        held_elsewhere(tmp_path / "out") as number,
        pytest.raises(InputError, match=rf"out: process {number} on .* writes its results there at this moment"),
        locked_folder(tmp_path / "out"),
    ):
        raise AssertionError("both hold it")
    assert (tmp_path / "out" / LOCK_NAME).exists()
    with locked_folder(tmp_path / "out"):  # who was killed holds nothing
        assert (tmp_path / "out" / LOCK_NAME).read_text().startswith(f"process {os.getpid()} on ")
        (tmp_path / "out/best.pt").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["best.pt"]


def test_a_worker_does_not_inherit_it(tmp_path):
    """A worker process may outlive a run that was killed; --resume need not wait for it."""
    with locked_folder(tmp_path / "out"):
        worker = FORK.Process(target=signal.pause)
        worker.start()
        (tmp_path / "out/best.pt").touch()
    with held_elsewhere(tmp_path / "out"):
        pass
    worker.kill()
    worker.join()


def test_an_empty_folder_vanishes(tmp_path):
    with pytest.raises(InputError, match="of the block"), locked_folder(tmp_path / "a/out"):
        raise InputError("of the block")
    assert not (tmp_path / "a/out").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(FileExistsError), locked_folder(tmp_path / "out"):
        pass


def test_files_that_belong_together(tmp_path: Path) -> None:
    """Old ones stay until all are written; the one that users name is replaced last."""
    first, second = tmp_path / "a.xml", tmp_path / "a.bin"
    for path in (first, second):
        path.write_text("old")
    with pytest.raises(UnicodeEncodeError), atomic_files(first, (".bin",)) as temporary:
        temporary.write_text("\udc00", encoding="utf-8")
    assert (first.read_text(), second.read_text()) == ("old", "old")
    with pytest.raises(FileNotFoundError, match=re.escape(str(first))), atomic_files(first, (".bin",)) as temporary:
        temporary.write_text("new")
    assert (first.read_text(), second.read_text()) == ("old", "old")
    with atomic_files(first, (".bin",)) as temporary:
        temporary.write_text("new")
        temporary.with_suffix(".bin").write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.xml": "new", "a.bin": "new"}
