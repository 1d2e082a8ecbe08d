"""How a tool ends: the exit code, one line on standard error, never a traceback for what a user did."""

from __future__ import annotations

import errno
import io
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from detect.errors import InputError
from detect.runtime import logs
from detect.runtime.cli import run_tool
from detect.runtime.interruption import Terminated

ROOT = Path(__file__).parents[2]
START = (
    "import errno, sys, time\nfrom detect.runtime.startup import start_tool\nstart_tool()\n"
    "from detect.errors import InputError\nfrom detect.runtime.cli import run_tool\n"
    "from detect.runtime.interruption import Terminated\n"
)


def tool(body: str) -> list[str]:
    """The command of a tool whose ``main`` has this body."""
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    return [sys.executable, "-c", f"{START}def main():\n{indented}run_tool(main)\n"]


def run_here(main: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a tool in this process."""
    output, errors = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        patch.setattr(sys, "stderr", errors)
        patch.setattr(threading, "excepthook", threading.excepthook)
        patch.setattr(logs, "_CAPTURE", logs._Capture())
        for name in ("handlers", "level", "propagate"):
            patch.setattr(logs.LOGGER, name, getattr(logs.LOGGER, name))
        patch.setattr(logs.LOGGER, "handlers", [])
        try:
            run_tool(main)
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    output.flush()
    return code, output.buffer.getvalue().decode(), errors.getvalue()


def run(body: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of such a tool."""
    done = subprocess.run(tool(body), cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def fails(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


ENDINGS: list[tuple[Callable[[], None], tuple[int, str, str]]] = [
    (lambda: None, (0, "", "")),
    (lambda: print("done"), (0, "done\n", "")),
    (fails(InputError("a.yaml: epochs: 0 is below 1")), (2, "", "error: a.yaml: epochs: 0 is below 1\n")),
    (fails(InputError("two\nlines  of\ttext")), (2, "", "error: two lines of text\n")),
    (lambda: Path("none/such").read_text(), (2, "", "error: none/such: No such file or directory\n")),
    (
        fails(OSError(errno.ENOSPC, "No space left on device", "out/best.pt")),
        (2, "", "error: out/best.pt: the disk is full; nothing that was there before has changed\n"),
    ),
    (
        fails(OSError(errno.ENOSPC, "No space left on device")),
        (2, "", "error: input/output: the disk is full; nothing that was there before has changed\n"),
    ),
    (fails(PermissionError(errno.EACCES, "x", "a")), (2, "", "error: a: permission denied\n")),
    (fails(OSError("odd")), (2, "", "error: input/output: odd\n")),
    (fails(KeyboardInterrupt()), (130, "", "interrupted\n")),
    (fails(Terminated()), (143, "", "terminated\n")),
    (lambda: print("\udcff.jpg"), (0, "\\udcff.jpg\n", "")),
    (lambda: sys.exit(3), (3, "", "")),
]


def test_how_a_tool_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for main, expected in ENDINGS:
        assert run_here(main, monkeypatch) == expected


def test_memory_that_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, errors = run_here(fails(MemoryError()), monkeypatch)
    assert code == 2
    assert errors.startswith("error: the memory is used up; ")


def test_our_own_mistakes_are_no_input_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="an invariant of ours"):
        run_here(fails(AssertionError("an invariant of ours")), monkeypatch)


def test_a_message_that_the_terminal_cannot_show() -> None:
    """A file name with a letter outside the terminal's encoding must not end in a second error."""
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = tool("raise InputError('caf\\u00e9.jpg: is no image')")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: caf\\xe9.jpg: is no image\n")


def test_log_lines() -> None:
    """Information is bare, anything graver says what it is; all of it is on standard error."""
    code, output, errors = run(
        "from detect.runtime.logs import LOGGER\n"
        "LOGGER.debug('unseen')\n"
        "LOGGER.info('%d images', 3)\n"
        "LOGGER.warning('2 boxes')\n"
        "LOGGER.error('none left')\n"
    )
    assert (code, output) == (0, "")
    assert errors == "3 images\nwarning: 2 boxes\nerror: none left\n"


def test_a_reader_that_stops_reading() -> None:
    """``tools/x.py | head -1`` ends quietly."""
    command = tool("for number in range(30_000):\n    print(number)")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


WORK = """import pathlib, sys
print('many words' * 10_000)
print('in between', flush=True)
print('a message', file=sys.stderr, flush=True)
pathlib.Path(sys.argv[1]).write_text('the result')
print('at the end')"""


@pytest.mark.parametrize(
    ("redirections", "code", "errors"),
    [
        ("| head -c 4 > /dev/null", 0, "a message\n"),
        (">&-", 0, "a message\n"),
        ("2>&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("2>&1 | head -c 4 > /dev/null", 0, ""),
        ("2> /dev/full", 0, ""),
        (
            "> /dev/full",
            2,
            "a message\nerror: standard output: the disk is full; nothing that was there before has changed; "
            "all else is done\n",
        ),
    ],
)
def test_a_stream_that_cannot_be_written_costs_no_results(
    tmp_path: Path, redirections: str, code: int, errors: str
) -> None:
    words = shlex.join([*tool(WORK), str(tmp_path / "result")])
    command = ["bash", "-o", "pipefail", "-c", f"{words} {redirections}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (code, errors)
    assert (tmp_path / "result").read_text() == "the result"


def test_bad_input_on_a_full_disk_is_told_as_bad_input() -> None:
    words = shlex.join(tool("print('begun')\nraise InputError('a.yaml: is bad')"))
    done = subprocess.run(["bash", "-c", f"{words} > /dev/full"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: a.yaml: is bad\n")


def test_a_process_that_hangs_does_not_keep_the_tool() -> None:
    body = """import multiprocessing, os, signal
hangs = multiprocessing.Process(target=os.kill, args=(os.getpid(), 0), daemon=True)
hangs.run = lambda: os.kill(os.getpid(), signal.SIGSTOP)
hangs.start()
raise InputError('bad')"""
    done = subprocess.run(tool(body), cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (2, "error: bad\n")


def test_what_runs_a_tool_is_light() -> None:
    """Ctrl-C, a wrong option and --help need no PyTorch."""
    code = "import sys, detect.runtime.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_sigterm() -> None:
    command = tool("print('ready', flush=True)\ntime.sleep(60)")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (143, "terminated\n")


def test_ctrl_c() -> None:
    # A shell that starts the tests in the background lets all their children ignore the signal.
    heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = tool(f"{heard}print('ready', flush=True)\ntime.sleep(60)")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "interrupted\n")
