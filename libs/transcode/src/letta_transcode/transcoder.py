"""The ASGI application: HTTP and JSON on one side, gRPC servers on the other."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc

from letta_transcode import rpc
from letta_transcode.http.errors import ErrorMap, HttpError, detail, unavailable, unexpected, unprocessable
from letta_transcode.http.requests import ClientGone, HttpRequest, Receive, RequestLimits, Scope, Send, parse_json
from letta_transcode.http.responses import DONE, EVENT_STREAM, JSON, LINES, Response, dump, frame, lines
from letta_transcode.routing.bindings import File, RequestParts
from letta_transcode.routing.forms import MULTIPART, StreamedForm, parse_form
from letta_transcode.routing.lines import JsonLines
from letta_transcode.routing.openapi import Info, document
from letta_transcode.routing.routes import Absence
from letta_transcode.routing.templates import Refused
from letta_transcode.upstream.calls import Calls, Metadata
from letta_transcode.upstream.peers import Pace, Peers

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor
    from google.protobuf.message import Message

    from letta_transcode.routing.operations import Operation
    from letta_transcode.routing.routes import Absent, Routes
    from letta_transcode.routing.templates import PathMatch

_log = logging.getLogger(__name__)
# The second one keeps nginx from collecting events before it passes them on.
_STREAM_HEADERS = (("cache-control", "no-cache"), ("x-accel-buffering", "no"))


class Transcoder:
    """Serves the methods of gRPC servers, found by reflection, under the paths and as the JSON of their contract."""

    def __init__(
        self,
        channels: Mapping[str, grpc.aio.Channel],
        *,
        reasons: EnumDescriptor | None = None,
        limits: RequestLimits | None = None,
        pace: Pace | None = None,
        absent: Absent | None = None,
    ) -> None:
        self.peers = Peers(channels, pace, absent)
        self._limits = limits or RequestLimits()
        self._errors = ErrorMap(reasons)
        self._calls = Calls(self.peers, self._limits)
        self._documented: tuple[Routes, bytes] | None = None

    async def start(self) -> None:
        """Begin to read the servers' descriptors. Returns at once; requests are answered 503 until a server is seen."""
        await self.peers.start()

    async def close(self) -> None:
        """Stop watching the servers."""
        await self.peers.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request without metadata."""
        await self.serve(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send, metadata: Metadata = ()) -> None:
        """Serve one HTTP request; the metadata goes with the call."""
        request, response = HttpRequest(scope, receive), Response(send)
        try:
            await self._serve(request, response, metadata)
        except ClientGone:
            return
        except HttpError as error:
            await response.error(error, last=request.broken_off)
        except Exception:
            _log.exception("%s %s failed", request.method, request.path)
            if not response.started:
                await response.error(unexpected(), last=request.broken_off)

    def openapi(self, info: Info) -> bytes:
        """Return the OpenAPI document of what is served now."""
        routes = self.peers.routes
        if self._documented is None or self._documented[0] is not routes:
            self._documented = (routes, dump(document(routes, info)))
        return self._documented[1]

    async def _serve(self, request: HttpRequest, response: Response, metadata: Metadata) -> None:
        if request.path.startswith(rpc.PREFIX):
            await rpc.serve(request, response, self.peers, self._calls, (self._errors, self._limits, metadata))
            return
        found = self.peers.routes.router.find(request.method, request.path)
        if isinstance(found, Refused):
            raise self._refusal(found)
        if isinstance(found.target, Absence):
            raise detail(501, found.target.why)
        try:
            await self._answer(found.target, found, request, (response, metadata))
        except HttpError as error:
            raise found.target.told(error) from error

    async def _answer(
        self, wanted: Operation, found: PathMatch[Any], request: HttpRequest, to: tuple[Response, Metadata]
    ) -> None:
        response, metadata = to
        operation, parts = await self._read(wanted, found, request)
        if operation.method.client_streaming:
            pieces = self._pieces(operation, parts, request)
            await self._unary(operation, self._calls.upload(operation.method, pieces, metadata), response)
            return
        message = operation.binding.read(parts)
        try:
            data = message.SerializeToString()
        except ValueError as error:
            raise unprocessable(
                [{"type": "value_error", "loc": ("body",), "msg": str(error), "input": None}]
            ) from error
        if operation.method.server_streaming:
            await self._stream(operation, data, request, (response, metadata))
        else:
            await self._unary(operation, self._calls.unary(operation.method, data, metadata, request), response)

    def _refusal(self, refused: Refused) -> HttpError:
        if self.peers.unseen:  # the operation may be one of theirs
            return unavailable(f"Not there yet: {', '.join(self.peers.unseen)}")
        if refused.allowed:
            return detail(405, "Method Not Allowed", [("allow", ", ".join(refused.allowed))])
        return detail(404, "Not Found")

    async def _read(
        self, operation: Operation, found: PathMatch[Any], request: HttpRequest
    ) -> tuple[Operation, RequestParts]:
        """Read the parts of a request, and choose the operation that its body asks for."""
        try:
            path = found.template.read(found.segments)
        except UnicodeDecodeError as error:
            raise detail(404, "Not Found") from error
        if not operation.binding.body:
            return operation, RequestParts(path, request.query, request.headers)
        if operation.json_lines:
            request.require_lines()
            return operation, RequestParts(path, request.query, request.headers)
        content_type = request.content_type
        if operation.binding.takes_forms and content_type.startswith(MULTIPART):
            return operation, await self._read_form(operation, path, request)
        if operation.binding.raw_body:
            body = await request.body(self._limits.form)
            return operation, RequestParts(path, request.query, request.headers, body=body, content_type=content_type)
        body = await request.json_body(self._limits.body)
        if not body:
            return operation, RequestParts(path, request.query, request.headers)
        value = parse_json(body)
        return operation.streams(value), RequestParts(path, request.query, request.headers, body=value)

    def _pieces(self, operation: Operation, parts: RequestParts, request: HttpRequest) -> AsyncIterator[bytes]:
        """Return the requests of a stream as they come. What was handed on before a refused one, the server has."""
        if operation.json_lines:
            return JsonLines(request, operation.binding, parts, self._limits.body).requests()
        return operation.binding.pieces(operation.binding.read(parts), parts.content)

    async def _read_form(
        self, operation: Operation, path: list[tuple[tuple[str, ...], str]], request: HttpRequest
    ) -> RequestParts:
        """Read a form; where requests are a stream up to the bytes of its file, which go on as they come."""
        content = None
        if operation.method.client_streaming:
            [key] = operation.binding.files
            chunks = request.chunks(self._limits.form)
            form = StreamedForm(request.content_type, chunks, key, operation.binding.form_fields)
            fields, part = await form.head(self._limits.body)
            files = {key: File(part.name, part.content_type, b"")} if part is not None else {}
            content = form.content()
        else:
            fields, files = parse_form(request.content_type, await request.body(self._limits.form))
        return RequestParts(path, request.query, request.headers, form=fields, files=files, content=content)

    async def _unary(self, operation: Operation, call: Awaitable[Message], response: Response) -> None:
        try:
            message = await call
        except grpc.RpcError as error:
            raise self._errors.http(error, operation.binding.locate) from error
        if operation.http_body:
            body: Any = message
            await response.document(operation.status, body.data, body.content_type or "application/octet-stream")
        elif operation.status == 204:
            await response.nothing(204)
        else:
            text = dump(operation.write(message)) if operation.constant is None else operation.constant
            await response.document(operation.status, text, JSON)

    async def _stream(
        self, operation: Operation, data: bytes, request: HttpRequest, to: tuple[Response, Metadata]
    ) -> None:
        """Answer once the first message is there, so that an early failure is an HTTP error and not an event."""
        response, metadata = to
        send = self._chunks if operation.http_body else self._lines if operation.json_lines else self._events
        async with aclosing(self._calls.stream(operation.method, data, metadata, request)) as messages:
            try:
                first = await anext(messages, None)
            except grpc.RpcError as error:
                raise self._errors.http(error, operation.binding.locate) from error
            await send(operation, first, messages, response)

    async def _events(
        self, operation: Operation, first: Message | None, rest: AsyncIterator[Message], response: Response
    ) -> None:
        await response.start(operation.status, EVENT_STREAM, _STREAM_HEADERS)
        name = operation.event
        try:
            if first is not None:
                await response.chunk(frame(dump(operation.write(first)), name(first) if name else ""))
                async for message in rest:
                    await response.chunk(frame(dump(operation.write(message)), name(message) if name else ""))
        except grpc.RpcError as error:
            failure = operation.told(self._errors.http(error, operation.binding.locate)).body
            body = self._errors.event(error) if operation.sse_done and not operation.openai_errors else failure
            await response.chunk(frame(dump(body), "error"))
        if operation.sse_done:
            await response.chunk(DONE)
        await response.end()

    async def _lines(
        self, operation: Operation, first: Message | None, rest: AsyncIterator[Message], response: Response
    ) -> None:
        await response.start(operation.status, LINES, _STREAM_HEADERS)
        try:
            if first is not None:
                await response.chunk(lines(operation.write(first)))
                async for message in rest:
                    await response.chunk(lines(operation.write(message)))
        except grpc.RpcError as error:
            await response.chunk(lines([{"error": self._errors.http(error, operation.binding.locate).body}]))
        await response.end()

    async def _chunks(self, operation: Operation, first: Any, rest: AsyncIterator[Message], response: Response) -> None:
        kind = first.content_type if first is not None else ""
        await response.start(operation.status, kind or "application/octet-stream")
        if first is not None:
            await response.chunk(first.data)
            async for message in rest:
                body: Any = message
                await response.chunk(body.data)
        await response.end()
