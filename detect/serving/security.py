"""Protection of a local web server from other web pages: names of hosts, origins, and the headers of all answers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from detect.errors import visible

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy: the server's own files only, nothing inline."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-fA-F:.]+)\]|(?P<name>[^:/@\[\]\s]+))(?::\d{1,5})?")


class Guard:
    """An application that only known hosts and the own page may use; every answer gets ``HEADERS``.

    A page of another site may point its own name at 127.0.0.1 (DNS rebinding). Its requests then have that name as
    their host, so names are refused unless they are known; an address cannot be pointed elsewhere.

    Args:
        app: the guarded application.
        names: of hosts, besides ``localhost`` and all addresses.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.datastructures import Headers, MutableHeaders
        from starlette.responses import JSONResponse

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        reason = self._refusal(headers.get("host", ""), headers.get("origin"))
        refusal = JSONResponse({"error": reason}, status_code=403, headers={"connection": "close"})
        app = refusal if reason else self._app
        await app(scope, receive, send_guarded)

    def _refusal(self, host: str, origin: str | None) -> str:
        """The reason to refuse a request; empty for none."""
        found = _HOST.fullmatch(host)
        if found is None or not (found["address"] or self._is_known(found["name"])):
            return f"host: {visible(host[:100])!r} is not a name of this server; detect serve --allow-host adds one"
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return f"origin: {visible(origin[:100])!r} is another site; only this server's own page may use it"
        return ""

    def _is_known(self, name: str) -> bool:
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower().rstrip(".") in self._names
        return True
