"""Nothing is downloaded, sent or looked up: every test runs under the guard of ``sitecustomize.py``."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.offline.sitecustomize import take_attempts
from tests.tools.running import make_world, run_process

FAR = "192.0.2.1"
"""For documentation only (RFC 5737): nobody has it."""


def test_other_machines_are_refused_here():
    with socket.socket() as client, pytest.raises(ConnectionRefusedError, match="tests have no network: connect"):
        client.connect((FAR, 80))
    with pytest.raises(ConnectionRefusedError, match=r"getaddrinfo 'example\.org'"):
        socket.create_connection(("example.org", 443))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as telemetry,
        pytest.raises(ConnectionRefusedError, match="sendto"),
    ):
        telemetry.sendto(b"usage", (FAR, 53))
    with socket.socket() as server, pytest.raises(ConnectionRefusedError, match=r"bind '0\.0\.0\.0'"):
        server.bind(("0.0.0.0", 0))
    assert take_attempts() == [f"connect '{FAR}'", "getaddrinfo 'example.org'", f"sendto '{FAR}'", "bind '0.0.0.0'"]


def test_this_machine_is_not_refused(tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname()) as client:
            client.sendall(b"x")
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
    socket.getaddrinfo("localhost", 80)
    assert take_attempts() == []


TOOL = """\
import socket
from detect.runtime.cli import run_tool

def main():
    {}

run_tool(main)
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"socket.create_connection(('{FAR}', 80))", [f"getaddrinfo '{FAR}'"]),
        ("import urllib.request; urllib.request.urlopen('https://example.org')", ["getaddrinfo 'example.org'"]),
    ],
)
def test_other_machines_are_refused_in_a_tool(tmp_path, body, expected):
    (tmp_path / "calls_home.py").write_text(TOOL.format(body))
    ended = run_process(tmp_path, str(tmp_path / "calls_home.py"))
    assert "tests have no network: getaddrinfo" in ended.complaint
    assert take_attempts() == expected


def test_a_quiet_attempt_is_noticed(tmp_path):
    """A library that asks for its newest version, and hides that it could not."""
    text = (
        "import socket\n\ndef quiet():\n    try:\n"
        f"        socket.socket().connect(('{FAR}', 80))\n    except OSError:\n        pass\n\nquiet()\n"
    )
    (tmp_path / "calls_home.py").write_text(text)
    assert run_process(tmp_path, str(tmp_path / "calls_home.py")) == (0, "", "")
    assert take_attempts() == [f"connect '{FAR}'"]


CHAIN = """\
import sys
from pathlib import Path
from tests.tools.running import TRAIN, run_here

folder = Path(sys.argv[1])
weights = ("--weights", "out/best.pt", "--device", "cpu")
for words in (
    (*TRAIN, "--epochs", 1, "--out", "out"),
    ("evaluate.py", *weights, "--data", "data.yaml", "--out", "evaluated", "--workers", 0),
    ("predict.py", *weights, "--source", "shapes/images/val", "--out", "predicted"),
    ("export.py", *weights[:2], "--out", "model.onnx"),
):
    ended = run_here(folder, *words)
    assert ended.code == 0, ended
"""


@pytest.mark.slow
def test_the_tools_work_where_there_is_no_network_at_all(tmp_path):
    """In a network namespace of its own a process has no interface, so that libraries in C reach nothing either."""
    alone = ("unshare", "--map-root-user", "--net")
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this system does not let a user make a network namespace")
    command = [*alone, sys.executable, "-c", CHAIN, str(make_world(tmp_path))]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.onnx").is_file()
