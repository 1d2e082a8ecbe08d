"""The socket of ``detect serve``, its command line, and its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from detect.cli.main import run_command
from detect.errors import InputError
from detect.serving.server import address_of, is_local, listen, require_framework
from tests.inference.onnx_files import write_classifier, write_detections
from tests.serving.servers import ROWS, ask, png

ROOT = Path(__file__).parents[2]


def test_a_free_port():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert is_local(listener)
        assert address_of(listener, "127.0.0.1") == f"http://127.0.0.1:{port}"
        with pytest.raises(InputError, match=f"--port {port}: is in use; name another one, or 0 for any free one"):
            listen("127.0.0.1", port)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_version_6():
    with listen("::1", 0) as listener:
        assert is_local(listener)
        assert address_of(listener, "::1") == f"http://[::1]:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 65536, "--port: must be from 0 to 65535, found 65536"),
        ("::1::", 0, "--host ::1:: --port 0: cannot be opened: "),
    ],
)
def test_no_such_address(host, port, message):
    with pytest.raises(InputError, match=message):
        listen(host, port)


@pytest.mark.parametrize("name", ["starlette", "uvicorn"])
def test_the_extra_is_missing(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    message = rf"detect serve: needs {name}, which is missing: pip install 'detect-small\[serve\]'"
    with pytest.raises(InputError, match=message):
        require_framework()


def test_a_classifier(tmp_path, monkeypatch):
    path = write_classifier(tmp_path / "model.onnx")
    monkeypatch.setattr(sys, "argv", ["detect", "serve", "--weights", str(path), "--port", "0"])
    with pytest.raises(InputError, match=r"model.onnx: is a classifier; detect serve is for detectors"):
        run_command()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_the_command(tmp_path, number):
    """An exported file is served without PyTorch; a signal ends the server with 0 and nothing on standard error."""
    write_detections(tmp_path / "model.onnx", ROWS)
    words = ["detect", "serve", "--weights", "model.onnx", "--port", "0", "--device", "cpu"]
    code = (
        f"import sys; sys.argv = {words}\nfrom detect.cli import start\nstart()\n"
        "print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    command, settings = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()
        port = int(line.rpartition(":")[2].split()[0])
        assert line == f"model.onnx on cpu: http://127.0.0.1:{port} (Ctrl-C ends it)\n"
        assert len(ask(port, "/api/predict?conf=0.05", png()).content["detections"]) == 2
        process.send_signal(number)
        output, error = process.communicate(timeout=60)
    assert (process.returncode, output, error) == (0, "[]\n", "")
