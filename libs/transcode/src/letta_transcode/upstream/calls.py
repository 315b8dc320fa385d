"""Calls methods and gives up when the HTTP client does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import grpc

from letta_transcode.http.requests import ClientGone

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from letta_transcode.http.requests import HttpRequest, RequestLimits
    from letta_transcode.routing.operations import UpstreamMethod
    from letta_transcode.upstream.peers import Peers

Metadata = Sequence[tuple[str, str | bytes]]
Data = bytes | Iterator[bytes] | AsyncGenerator[bytes, None]
"""A serialized request, or those of a stream."""


# Far above the methods of an API, so only stubs of descriptors that were replaced are dropped.
_MAX_STUBS = 4096


class Calls:
    """Makes calls on the channels of the peers; requests are serialized already."""

    def __init__(self, peers: Peers, limits: RequestLimits) -> None:
        self._peers = peers
        self._limits = limits
        self._stub = lru_cache(_MAX_STUBS)(self._make_stub)  # those of descriptors that changed go first

    async def unary(self, method: UpstreamMethod, data: Data, metadata: Metadata, request: HttpRequest) -> Message:
        """Call and return the response. Raises grpc.RpcError, and ClientGone when the client went away first."""
        # A stream of requests takes as long as the client takes to send it.
        seconds = self._limits.stream if isinstance(data, AsyncGenerator) else self._limits.call
        call = self._stub(method)(data, timeout=seconds, metadata=metadata)
        with _Watch(call, request) as watch:
            try:
                response: Message = await call
            except (asyncio.CancelledError, grpc.RpcError):
                if watch.client_gone:
                    raise ClientGone from None
                raise
        return response

    async def stream(
        self, method: UpstreamMethod, data: Data, metadata: Metadata, request: HttpRequest
    ) -> AsyncGenerator[Message, None]:
        """Call and yield the responses. Raises grpc.RpcError, and ClientGone when the client went away first."""
        call = self._stub(method)(data, timeout=self._limits.stream, metadata=metadata)
        with _Watch(call, request) as watch:
            try:
                async for response in call:
                    yield response
            except (asyncio.CancelledError, grpc.RpcError):
                if watch.client_gone:
                    raise ClientGone from None
                raise
            finally:
                # Also when the reader leaves: the server would go on for nobody.
                call.cancel()

    def _make_stub(self, method: UpstreamMethod) -> Any:
        channel = self._peers.channel(method.peer)
        kinds = (channel.unary_unary, channel.unary_stream, channel.stream_unary, channel.stream_stream)
        make: Any = kinds[2 * method.client_streaming + method.server_streaming]
        return make(method.path, request_serializer=_as_it_is, response_deserializer=method.response.FromString)


class _Watch:
    """Cancels a call when the client of a request closes the connection."""

    def __init__(self, call: Any, request: HttpRequest) -> None:
        self._call = call
        self._task = asyncio.ensure_future(request.gone())
        self._task.add_done_callback(self._ended)
        self.client_gone = False

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        # Ended by us and not by the client, so the callback must not run.
        self._task.remove_done_callback(self._ended)
        self._task.cancel()

    def _ended(self, _: asyncio.Future[None]) -> None:
        self.client_gone = True
        self._call.cancel()


def _as_it_is(data: bytes) -> bytes:
    return data
