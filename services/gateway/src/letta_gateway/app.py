"""The ASGI application: request id, CORS, credentials, health and documents around the transcoder."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import Counter

from letta_common.values.ids import uuid7
from letta_gateway.cors import Cors, is_preflight
from letta_gateway.docs import PAGE
from letta_rpc.boundary import COMPAT, COMPAT_KEY
from letta_transcode import HttpError, Info, Transcoder
from letta_transcode.http.requests import HttpRequest, Receive, Scope, Send
from letta_transcode.http.responses import JSON, Response, dump
from letta_transcode.rpc import PREFIX

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

    from letta_gateway.authenticator import Authenticator, Metadata
    from letta_gateway.browsers import BrowserGate
    from letta_gateway.readiness import Readiness

_VERSION = version("letta-gateway")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_PASSED = ("traceparent", "tracestate")
_RESPONSES = Counter("letta_http_responses", "HTTP responses, by status.", ["status"])


@dataclass(frozen=True, slots=True)
class AppParts:
    """What the application is made of."""

    transcoder: Transcoder
    authenticator: Authenticator
    cors: Cors
    readiness: Readiness
    gate: BrowserGate
    docs: bool = True


class App:
    """The HTTP side of the deployment. It holds no routes of its own but health and documents."""

    def __init__(self, parts: AppParts) -> None:
        self._transcoder = parts.transcoder
        self._authenticator = parts.authenticator
        self._cors = parts.cors
        self._readiness = parts.readiness
        self._gate = parts.gate
        self._info = Info("Letta on gRPC", _VERSION, "Letta's REST, served from the contracts of the gRPC services.")
        pages: dict[str, Callable[[Response], Awaitable[None]]] = {
            "/": self._home,
            "/v1/health": self._health,
            "/v1/ready": self._ready,
        }
        documents = {"/openapi.json": self._openapi, "/docs": self._docs}
        self._pages = pages | documents if parts.docs else pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI server."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})  # "unsupported data", RFC 6455

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HttpRequest(scope, receive)
        given = request.headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid7())
        origin = request.headers.get("origin", "")
        extra = [(b"x-request-id", request_id.encode()), *self._cors.headers(origin)]

        async def marked(event: MutableMapping[str, Any]) -> None:
            if event["type"] == "http.response.start":
                event["headers"] = [*event["headers"], *extra]
                _RESPONSES.labels(event["status"]).inc()
            await send(event)

        try:
            # Before the preflight too: a page that may not call is not told what is allowed.
            self._gate.check(request.method, request.headers)
        except HttpError as error:
            await Response(marked).error(error)
            return
        if is_preflight(request.method, request.headers):
            allowed = self._cors.allows(origin)
            extra += self._cors.preflight(request.headers) if allowed else []
            await Response(marked).document(200 if allowed else 400, b"OK" if allowed else b"", "text/plain")
            return
        page = self._pages.get(scope["path"].rstrip("/") or "/")
        if page is not None:
            await self._page(page, request, Response(marked))
            return
        try:
            metadata = await self._metadata(request, request_id)
        except HttpError as error:
            await Response(marked).error(error)
            return
        await self._transcoder.serve(scope, receive, marked, metadata)

    async def _metadata(self, request: HttpRequest, request_id: str) -> Metadata:
        metadata = await self._authenticator.metadata(request.headers)
        metadata.append(("x-request-id", request_id))
        # REST speaks the words of older clients; methods called by their gRPC names do not.
        if not request.path.startswith(PREFIX):
            metadata.append((COMPAT_KEY, COMPAT))
        for name in _PASSED:
            value = request.headers.get(name, "")
            # gRPC refuses a call whose metadata holds anything else, and a bad trace id is no reason to fail.
            if value and value.isascii() and value.isprintable() and len(value) < 512:
                metadata.append((name, value))
        return metadata

    async def _page(
        self, page: Callable[[Response], Awaitable[None]], request: HttpRequest, response: Response
    ) -> None:
        if request.method in ("GET", "HEAD"):
            await page(response)
        else:
            await response.error(HttpError(405, {"detail": "Method Not Allowed"}, [("allow", "GET, HEAD")]))

    async def _home(self, response: Response) -> None:
        about = {"name": "letta-on-grpc", "version": _VERSION, "docs": "/docs", "openapi": "/openapi.json"}
        await response.document(200, dump(about), JSON)

    async def _health(self, response: Response) -> None:
        await response.document(200, dump({"version": _VERSION, "status": "ok"}), JSON)

    async def _ready(self, response: Response) -> None:
        waiting = self._transcoder.peers.unseen
        missing = [] if waiting else await self._readiness.missing()
        if waiting:
            body = {"version": _VERSION, "status": "starting", "waiting_for": list(waiting)}
        elif missing:
            body = {"version": _VERSION, "status": "not_serving", "waiting_for": missing}
        else:
            await self._health(response)
            return
        await response.document(503, dump(body), JSON, [("retry-after", "1")])

    async def _openapi(self, response: Response) -> None:
        await response.document(200, self._transcoder.openapi(self._info), JSON)

    async def _docs(self, response: Response) -> None:
        policy = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
        await response.document(200, PAGE, "text/html; charset=utf-8", [("content-security-policy", policy)])


async def _lifespan(receive: Receive, send: Send) -> None:
    """Agree to start and stop; both are done by whoever built the application."""
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
