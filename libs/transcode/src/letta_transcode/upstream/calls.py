"""Calls methods and gives up when the HTTP client does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
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

# Far above the methods of an API, so only stubs of descriptors that were replaced are dropped.
_MAX_STUBS = 4096
_OVER = (grpc.RpcError, grpc.aio.InternalError, asyncio.InvalidStateError)
"""What writing to a call raises that is over."""
_END_SECONDS = 10.0


class Calls:
    """Makes calls on the channels of the peers; requests are serialized already."""

    def __init__(self, peers: Peers, limits: RequestLimits) -> None:
        self._peers = peers
        self._limits = limits
        self._stub = lru_cache(_MAX_STUBS)(self._make_stub)  # those of descriptors that changed go first

    async def unary(self, method: UpstreamMethod, data: bytes, metadata: Metadata, request: HttpRequest) -> Message:
        """Call and return the response. Raises grpc.RpcError, and ClientGone when the client went away first."""
        call = self._stub(method)(data, timeout=self._limits.call, metadata=metadata)
        with _Watch(call, request) as watch:
            try:
                response: Message = await call
            except (asyncio.CancelledError, grpc.RpcError):
                if watch.client_gone:
                    raise ClientGone from None
                raise
        return response

    async def stream(
        self, method: UpstreamMethod, data: bytes, metadata: Metadata, request: HttpRequest
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

    async def upload(self, method: UpstreamMethod, pieces: AsyncIterator[bytes], metadata: Metadata) -> Message:
        """Call with a stream of requests and return the response, which may come before all of them were sent.

        Raises grpc.RpcError, and what the pieces raise. The stream then ends as a complete one does, and what the
        method answers to that is dropped: it must know by itself that something is missing.
        """
        call = self._stub(method)(timeout=self._limits.stream, metadata=metadata)
        failures: list[Exception] = []
        sending = asyncio.ensure_future(_send(call, pieces, failures))
        try:
            response: Message = await call
        except grpc.RpcError as error:
            raise (failures or [error])[0] from None
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            sending.cancel()
        if failures:
            raise failures[0]
        return response

    def _make_stub(self, method: UpstreamMethod) -> Any:
        channel = self._peers.channel(method.peer)
        kinds = (channel.unary_unary, channel.unary_stream, channel.stream_unary, channel.stream_stream)
        make: Any = kinds[2 * method.client_streaming + method.server_streaming]
        return make(method.path, request_serializer=_as_it_is, response_deserializer=method.response.FromString)


async def _send(call: Any, pieces: AsyncIterator[bytes], failures: list[Exception]) -> None:
    """Send a stream of requests as fast as the other side takes them; note what the pieces raise."""
    # Written behind the back of grpc.aio, which lets a write that comes after the answer of a refusing server take the
    # place of that answer (grpc/grpc#36066). A call in this process has no such core.
    core = getattr(call, "_cython_call", None)
    write = core.send_serialized_message if core is not None else call.write
    try:
        await call.wait_for_connection()
        try:
            async for piece in pieces:
                await write(piece)
        except _OVER:
            raise
        except Exception as error:
            failures.append(error)
        await call.done_writing()
    except _OVER:
        # Whoever waits for the call is told how it ended; where nothing tells, it is not waited for long.
        asyncio.get_running_loop().call_later(_END_SECONDS, call.cancel)


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
