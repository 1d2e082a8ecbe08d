"""No test speaks to another machine: neither this process nor one that it starts.

Python imports this file at its start, because ``guard_all`` puts its folder on the path of all processes. What is
refused is written down too, so that a test fails even where a library keeps quiet about it.

Only what goes through Python is seen. What libraries in C do by themselves is the matter of ``test_offline.py``.
"""

from __future__ import annotations

import atexit
import ipaddress
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

ATTEMPTS = "DETECT_TESTS_NETWORK_ATTEMPTS"
"""Environment variable with the file that takes a line for each attempt."""

_WITH_ADDRESS = frozenset(("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"))
_WITH_HOST = frozenset(("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"))
_WATCHED = _WITH_ADDRESS | _WITH_HOST


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook (PEP 578), which cannot be taken away again."""
    if event not in _WATCHED:  # first: Python raises thousands of other events in each second of the suite
        return
    if event in _WITH_ADDRESS:
        address = arguments[1]
        if arguments[0].family not in (socket.AF_INET, socket.AF_INET6) or address is None:
            return  # of this machine: AF_UNIX, AF_NETLINK; a message on a connected socket
        host = address[0]
    else:
        host = arguments[0]
    if not _is_here(host):
        attempt = f"{event.removeprefix('socket.')} {host!r}"
        with Path(os.environ[ATTEMPTS]).open("a", encoding="utf-8") as log:
            log.write(f"{attempt}\n")
        raise ConnectionRefusedError(f"tests have no network: {attempt}")


def _is_here(host: Any) -> bool:
    """Whether a name or address is this machine's own, or none at all."""
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in (None, "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def guard_all() -> None:
    """Guard this process and those that it starts."""
    handle, path = tempfile.mkstemp(prefix="detect-network-attempts-")
    os.close(handle)
    atexit.register(os.unlink, path)
    os.environ[ATTEMPTS] = path
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    sys.addaudithook(_refuse)


def take_attempts() -> list[str]:
    """What has been refused since the last time, here or in a process that was started from here."""
    log = Path(os.environ[ATTEMPTS])
    lines = log.read_text(encoding="utf-8").splitlines()
    if lines:
        log.write_bytes(b"")
    return lines


if __name__ == "sitecustomize" and ATTEMPTS in os.environ:
    sys.addaudithook(_refuse)
