"""Serves every public method as `POST /rpc/<package.Service>/<Method>` in canonical proto3 JSON."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pool, json_format
from google.rpc import error_details_pb2, status_pb2

from letta_transcode.http.errors import ErrorMap, HttpError, detail, http_status, status_of, unavailable
from letta_transcode.http.responses import EVENT_STREAM, JSON, Response, dump, frame
from letta_transcode.mapping.values import MAX_DEPTH

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from letta_transcode.http.requests import HttpRequest, RequestLimits
    from letta_transcode.routing.operations import UpstreamMethod
    from letta_transcode.upstream.calls import Calls, Metadata
    from letta_transcode.upstream.peers import Peers

PREFIX = "/rpc/"
_DETAILS = error_details_pb2.DESCRIPTOR.name
"""Named so that the details of errors are linked in and can be written as JSON."""


async def serve(
    request: HttpRequest,
    response: Response,
    peers: Peers,
    calls: Calls,
    with_: tuple[ErrorMap, RequestLimits, Metadata],
) -> None:
    """Serve one call."""
    errors, limits, metadata = with_
    method = peers.routes.methods.get(f"/{request.path.removeprefix(PREFIX)}")
    if method is None or method.internal or method.client_streaming:
        if method is None and peers.unseen:
            raise unavailable(f"Not there yet: {', '.join(peers.unseen)}")
        raise _refused(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")
    if request.method != "POST":
        raise detail(405, "Method Not Allowed", [("allow", "POST")])
    data = _read(method, await request.json_body(limits.body))
    try:
        if method.server_streaming:
            await _stream(method, data, request, response, (errors, calls, metadata))
        else:
            message = await calls.unary(method, data, metadata, request)
            await response.document(200, _write(method, message), JSON)
    except grpc.RpcError as error:
        raise _failed(errors, error) from error


async def _stream(
    method: UpstreamMethod,
    data: bytes,
    request: HttpRequest,
    response: Response,
    with_: tuple[ErrorMap, Calls, Metadata],
) -> None:
    errors, calls, metadata = with_
    async with aclosing(calls.stream(method, data, metadata, request)) as messages:
        first = await anext(messages, None)
        await response.start(200, EVENT_STREAM, [("cache-control", "no-cache"), ("x-accel-buffering", "no")])
        try:
            if first is not None:
                await response.chunk(frame(_write(method, first)))
                async for message in messages:
                    await response.chunk(frame(_write(method, message)))
        except grpc.RpcError as error:
            await response.chunk(frame(dump(_failed(errors, error).body), "error"))
        await response.end()


def _read(method: UpstreamMethod, body: bytes) -> bytes:
    message = method.request()
    if body and not body.lstrip().startswith(b"{"):
        raise _refused(grpc.StatusCode.INVALID_ARGUMENT, "the body should be a JSON object")
    try:
        if body:
            json_format.Parse(body, message, descriptor_pool=method.pool, max_recursion_depth=MAX_DEPTH)
        return message.SerializeToString()
    except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:500]) from error


def _write(method: UpstreamMethod, message: Message) -> bytes:
    return json_format.MessageToJson(message, indent=None, descriptor_pool=method.pool).encode()


def _refused(code: grpc.StatusCode, text: str) -> HttpError:
    return HttpError(http_status(code), {"code": code.value[0], "message": text, "details": []})


def _failed(errors: ErrorMap, error: grpc.RpcError) -> HttpError:
    """Return the status of the call as JSON. What nobody explained is the transport's, whose words name addresses."""
    as_http = errors.http(error)
    status = status_of(error)
    if as_http.status in _UNEXPLAINED and not status.details:
        status.message = _UNEXPLAINED[as_http.status]
    return HttpError(as_http.status, _status_json(status), as_http.headers)


_UNEXPLAINED = {500: "internal error", 503: "the service is not available", 504: "the service did not answer in time"}


def _status_json(status: status_pb2.Status) -> Any:
    try:
        body = json_format.MessageToDict(status, descriptor_pool=descriptor_pool.Default())
    except (TypeError, ValueError):
        body = {"code": status.code, "message": status.message}
    return {"code": status.code, "message": status.message, "details": [], **body}
