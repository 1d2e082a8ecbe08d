"""The web server of ``detect serve``: a socket, and uvicorn on it until Ctrl-C or SIGTERM."""

from __future__ import annotations

import errno
import importlib
import ipaddress
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from detect.errors import InputError

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

MAX_CONNECTIONS = 128
"""More are answered by 503 at once."""
_IDLE_S = 5
"""Seconds until an idle connection is closed."""
_END_S = 10
"""Seconds for requests in progress after Ctrl-C."""


def require_framework() -> None:
    """Raise ``InputError`` where a package of the extra ``serve`` is missing."""
    for name in ("starlette", "uvicorn"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            raise InputError(
                f"detect serve: needs {name}, which is missing: pip install 'detect-small[serve]'"
            ) from None


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 is any free one.

    Raises:
        InputError: the port is taken, or is not one; or this machine has no such address.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port: must be from 0 to 65535, found {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"--port {port}: is in use; name another one, or 0 for any free one") from None
        raise InputError(f"--host {host} --port {port}: cannot be opened: {error.strerror or error}") from None


def is_local(listener: socket.socket) -> bool:
    """Return True where only this machine can connect."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def address_of(listener: socket.socket, host: str) -> str:
    """The address of the page on this machine, for a listener that was opened at ``host``."""
    own, port = listener.getsockname()[:2]
    name = "localhost" if ipaddress.ip_address(own).is_unspecified else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Answer requests until Ctrl-C or SIGTERM; those in progress are completed."""
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again when it has ended
        make_server(app).run(sockets=[listener])


def make_server(app: ASGIApp) -> uvicorn.Server:
    """A server with limits of its own and no word of its name; see ``serve``."""
    import uvicorn

    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_END_S,
    )
    return uvicorn.Server(config)
