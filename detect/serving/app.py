"""The web application of ``detect serve``: its page, and a JSON API with errors of one line.

Starlette is imported when the application is built: only the extra ``serve`` brings it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from detect.browser import page_file
from detect.data.images import ImageError
from detect.errors import InputError, visible
from detect.serving.predictions import ServedDetector, parse_query
from detect.serving.security import Guard

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

T = TypeVar("T")

PAGE_FILES = {
    "index.html": "text/html",
    "page.css": "text/css",
    "main.js": "text/javascript",
    "page.js": "text/javascript",
    "drawing.js": "text/javascript",
    "curve.js": "text/javascript",
    "sources.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""The page's files and their types; no other file is served."""
_DRAIN_S = 10.0
"""Seconds for which the rest of a refused upload is read and thrown away: a client that is still sending when the
connection is closed does not see the answer."""
_STATUS_OF = {ImageError: 422, InputError: 400, MemoryError: 503}
"""An ``ImageError`` is an ``InputError``, so it comes first."""

_OTHER_LINES = {
    503: "the memory is used up; a smaller image needs less",
    500: "an error of the server; see its terminal",
}


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Args:
        upload_bytes: of an image file.
        waiting: requests with an image at a time, including the one that is computed; more are refused.
        upload_s: seconds to receive an image.
        turn_s: seconds to wait for the requests before.
    """

    upload_bytes: int = 32 * 2**20
    waiting: int = 8
    upload_s: float = 30.0
    turn_s: float = 60.0


class ImageDesk:
    """Admission of requests with an image, and a thread in which the detector works for one of them at a time.

    Args:
        limits: of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._admitted = 0
        self._turn = asyncio.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="detector")

    async def run(self, request: Request, work: Callable[[bytes], T]) -> T:
        """Receive the image of a request and run ``work`` with it when its turn has come.

        Raises:
            HTTPException: too many requests wait, the image is too large, of another type, or takes too long.
            ClientDisconnect: nobody waits for the answer.
        """
        from starlette.exceptions import HTTPException
        from starlette.requests import ClientDisconnect

        if self._admitted >= self._limits.waiting:
            raise HTTPException(503, f"busy: {self._limits.waiting} requests are waiting; try again in a moment")
        self._admitted += 1
        try:
            data = await self._receive(request)
            try:
                await asyncio.wait_for(self._turn.acquire(), self._limits.turn_s)
            except asyncio.TimeoutError:
                raise HTTPException(503, f"busy: no turn within {self._limits.turn_s:g} s; try again later") from None
            try:
                if await request.is_disconnected():
                    raise ClientDisconnect
                return await asyncio.get_running_loop().run_in_executor(self._worker, work, data)
            finally:
                self._turn.release()
        finally:
            self._admitted -= 1

    async def _receive(self, request: Request) -> bytes:
        from starlette.exceptions import HTTPException

        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not (kind.startswith("image/") or kind == "application/octet-stream"):
            raise HTTPException(
                415,
                f"content type: must be image/... or application/octet-stream, found {visible(kind[:100])!r}; the "
                "body is the file itself, not a form",
            )
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared[:20]) > self._limits.upload_bytes:
            raise self._too_large()
        try:
            return await asyncio.wait_for(self._read(request), self._limits.upload_s)
        except asyncio.TimeoutError:
            raise HTTPException(408, f"the upload took longer than {self._limits.upload_s:g} s") from None

    async def _read(self, request: Request) -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self._limits.upload_bytes:
                raise self._too_large()
            parts.append(part)
        return b"".join(parts)

    def _too_large(self) -> Exception:
        from starlette.exceptions import HTTPException

        return HTTPException(
            413, f"the image: has more than {self._limits.upload_bytes / 2**20:g} MiB; --max-upload raises the limit"
        )


def build_app(served: ServedDetector, limits: Limits, host_names: tuple[str, ...] = ()) -> ASGIApp:
    """Make the ASGI application of a detector.

    Args:
        served: the detector; only this application may use it.
        limits: of the server.
        host_names: names of this server besides ``localhost``; see ``Guard``.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    desk = ImageDesk(limits)
    facts = {**served.describe(), "max_upload_bytes": limits.upload_bytes}

    async def model(request: Request) -> Response:
        return JSONResponse(facts)

    async def predict(request: Request) -> Response:
        query = parse_query(request.query_params)
        return JSONResponse(await desk.run(request, lambda data: served.predict(data, query)))

    async def picture(request: Request) -> Response:
        return Response(await desk.run(request, served.picture), media_type="image/jpeg")

    handlers: dict[Any, Any] = {
        **dict.fromkeys((InputError, ImageError, MemoryError, HTTPException, Exception), _answer_error),
        ClientDisconnect: lambda request, error: Response(),  # nobody reads it
    }
    routes = [
        Route("/api/model", model, methods=["GET"]),
        Route("/api/predict", predict, methods=["POST"]),
        Route("/api/picture", picture, methods=["POST"]),
        *(_file_route(name) for name in PAGE_FILES),
    ]
    return Guard(Starlette(routes=routes, exception_handlers=handlers), host_names)


def _file_route(name: str) -> Any:
    """The route of a file of the page; the page itself is at the root."""
    from starlette.responses import Response
    from starlette.routing import Route

    content = page_file(__package__, name)

    async def file(request: Request) -> Response:
        return Response(content, media_type=PAGE_FILES[name])

    return Route("/" if name == "index.html" else f"/{name}", file, methods=["GET"])


async def _answer_error(request: Request, error: Exception) -> Response:
    """Answer with the error's line as JSON; of an error of ours, the trace is in the server's terminal."""
    from starlette.exceptions import HTTPException
    from starlette.responses import JSONResponse

    if isinstance(error, HTTPException):
        status, line = error.status_code, str(error.detail)
    else:
        status = next((code for kind, code in _STATUS_OF.items() if isinstance(error, kind)), 500)
        line = str(error) if isinstance(error, InputError) else _OTHER_LINES[status]
    # Otherwise the server would go on to throw away what a client sends.
    headers = {} if await _drain(request) else {"connection": "close"}
    return JSONResponse({"error": line}, status_code=status, headers=headers)


async def _drain(request: Request) -> bool:
    """Read the rest of an upload, unless the client waits for a permission to send it; return True at its end."""
    from starlette.requests import ClientDisconnect

    async def read() -> None:
        with suppress(RuntimeError):  # there is no rest
            async for _ in request.stream():
                pass

    if "expect" in request.headers:
        return False
    try:
        await asyncio.wait_for(read(), _DRAIN_S)
    except (asyncio.TimeoutError, ClientDisconnect):
        return False
    return True
