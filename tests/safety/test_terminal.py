"""What a tool shows cannot steer the terminal, whatever the files say that it reads."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from detect.errors import visible
from detect.safety.terminal import shield_terminal

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("cat 0.97", "cat 0.97"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),  # the control sequence's beginning in one character
        ("a\nb\tc\rd\x00", r"a\nb\tc\rd\x00"),
        ("gpj.\u202egnp", r"gpj.\u202egnp"),  # would be shown as "gpj.png" turned round
        ("cat\u200b", r"cat\u200b"),  # a space without width: another class than "cat"
        ("\ufeffcat", r"\ufeffcat"),
        ("\udcff.jpg", r"\udcff.jpg"),
        ("a\u2028b", r"a\u2028b"),
        ("\U000e0041", r"\U000e0041"),  # a tag, invisible
        ("Ärger 人 собака e\u0301 🐈", "Ärger 人 собака e\u0301 🐈"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # a joiner that belongs to the word
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def shielded(monkeypatch: pytest.MonkeyPatch) -> tuple[io.StringIO, io.StringIO]:
    """What comes out of standard output and standard error from now on. pytest would replace those of a fixture."""
    output, error = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", error)
    shield_terminal()
    return output, error


def test_lines_and_tabs_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    output, error = shielded(monkeypatch)
    print("a\tb\nc", "\x1b[2J\r")
    sys.stderr.writelines(["warning:\n", "\x1b[2J\n"])
    assert output.getvalue() == "a\tb\nc \\x1b[2J\\r\n"
    assert error.getvalue() == "warning:\n\\x1b[2J\n"


def test_twice_is_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shielded(monkeypatch)
    first = sys.stdout
    shield_terminal()
    assert sys.stdout is first


def test_progress_bars_may_move_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    _, error = shielded(monkeypatch)
    with tqdm(total=2, desc="outer", ascii=True, file=sys.stderr) as outer:
        with tqdm(total=2, desc="inner", ascii=True, file=sys.stderr) as inner:
            inner.update(2)
        outer.update(2)
    assert "\router" in error.getvalue()
    assert "\x1b[A" in error.getvalue()
    assert "\\" not in error.getvalue()


HOSTILE = "\x1b[2Jcat\n\u202e\udcff error: all is well\r"


@pytest.mark.parametrize(
    ("body", "output", "error"),
    [
        ("print(NAME)", "\\x1b[2Jcat\n\\u202e\\udcff error: all is well\\r\n", ""),
        ("LOGGER.warning('%s', NAME)", "", "warning: \\x1b[2Jcat\\n\\u202e\\udcff error: all is well\\r\n"),
        ("raise InputError(NAME)", "", "error: \\x1b[2Jcat \\u202e\\udcff error: all is well\n"),
    ],
)
def test_a_tool_in_a_process(body: str, output: str, error: str) -> None:
    code = (
        "import sys\nfrom detect.errors import InputError\nfrom detect.runtime.cli import run_tool\n"
        f"from detect.runtime.logs import LOGGER\nNAME = {HOSTILE!r}\ndef main():\n    {body}\nrun_tool(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True)
    assert (done.stdout.decode(), done.stderr.decode()) == (output, error)


def test_a_traceback_of_ours_is_shielded_too() -> None:
    code = "from detect.runtime.cli import run_tool\ndef main():\n    assert False, '\\x1b[2J'\nrun_tool(main)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" in done.stderr
    assert "\x1b" not in done.stderr
    assert "\\x1b[2J" in done.stderr
