"""The client's side of gRPC inside one process: what generated stubs call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import grpc
import grpc.aio

from letta_local_channel.server import END, LOCALLY_CANCELLED, CallStatus, LocalServer, Metadata, Pipe, wake

_OK, _CANCELLED, _EXHAUSTED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED


@dataclass(frozen=True, slots=True)
class _Method:
    """A method as a stub knows it."""

    path: str
    streams_requests: bool
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


class LocalCall:
    """The client's side of a call: awaited for a unary response, iterated or read for a stream."""

    __slots__ = (
        *(
            "_answer",
            "_callbacks",
            "_expiry",
            "_initial",
            "_method",
            "_pump",
            "_server",
            "_status",
            "_task",
            "_waiters",
        ),
        *("deadline", "metadata", "method", "requests", "responses"),
    )

    def __init__(self, server: LocalServer, method: _Method, timeout: float | None, metadata: Any) -> None:
        self.method = method.path
        self.metadata = tuple(metadata or ())
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.requests, self.responses = Pipe(), Pipe()
        self._method = method
        self._server = server
        self._initial: Metadata | None = None
        self._status: CallStatus | None = None
        self._task: asyncio.Task[None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._answer: Any = END
        self._waiters: list[asyncio.Future[None]] = []
        self._callbacks: list[Callable[[Any], None]] = []

    def start(self, request: Any) -> LocalCall:
        """Send the request, or begin to send the stream of requests, and start the handler."""
        if _measured(self.metadata) > self._server.max_metadata:
            self.finish(CallStatus(_EXHAUSTED, "received metadata size exceeds hard limit"))
        elif self.deadline is not None and self.deadline <= time.monotonic():
            self.finish(CallStatus(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
        elif self._method.streams_requests:
            self._task = self._server.start_call(self)
            if request is not None:
                self._pump = asyncio.get_running_loop().create_task(self._send_all(request))
        elif self.fits(data := self._method.encode(request)):
            self.requests.load(data)
            self._task = self._server.start_call(self)
        # No handler began, and nothing above has said why: `start_call` refuses once the server has stopped.
        if self._status is None and self._task is None:
            self.finish(CallStatus(grpc.StatusCode.UNAVAILABLE, "the server has stopped"))
        elif self._status is None and self.deadline is not None:
            left = self.deadline - time.monotonic()
            self._expiry = asyncio.get_running_loop().call_later(left, self._expire)
        return self

    def fits(self, data: bytes) -> bool:
        """Say whether a message is within the limit; one that is not ends the call."""
        if len(data) > (limit := self._server.max_message):
            self.end(CallStatus(_EXHAUSTED, f"Sent message larger than max ({len(data)} vs. {limit})"))
            return False
        return True

    def send_initial(self, metadata: Metadata) -> None:
        """Take the initial metadata from the handler; the first one counts."""
        if self._initial is None:
            self._initial = metadata
            if self._waiters:
                self._notify()

    def finish(self, status: CallStatus, *, drop: bool = False) -> None:
        """End the call; the first status counts. Messages written before it can still be read unless dropped."""
        if self._status is not None:
            return
        self._status = status
        if self._expiry is not None:
            self._expiry.cancel()
        if self._pump is not None:
            self._pump.cancel()
        self.requests.close(drop=True)
        self.responses.close(drop=drop)
        if self._waiters:
            self._notify()
        for callback in self._callbacks:
            callback(self)

    def end(self, status: CallStatus) -> None:
        """End the call at once: unread messages are dropped and the handler is cancelled."""
        self.finish(status, drop=True)
        # A handler whose answer is too large ends its own call; it is told by an exception, not by being cancelled.
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def cancel(self) -> bool:
        """End the call from the client's side."""
        if self._status is not None:
            return False
        self.end(LOCALLY_CANCELLED)
        return True

    def cancelled(self) -> bool:
        """Say whether the call ended as cancelled."""
        return self._status is not None and self._status.code is _CANCELLED

    def done(self) -> bool:
        """Say whether the call is over."""
        return self._status is not None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back with this call when it is over."""
        if self._status is None:
            self._callbacks.append(callback)
        else:
            callback(self)

    def time_remaining(self) -> float | None:
        """Return the seconds left, or None without a deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    async def initial_metadata(self) -> Any:
        """Wait for the initial metadata."""
        await self._until(lambda: self._initial is not None or self._status is not None)
        return grpc.aio.Metadata(*(self._initial or ()))

    async def trailing_metadata(self) -> Any:
        """Wait for the end; return the trailing metadata."""
        return grpc.aio.Metadata(*(await self._final()).trailing)

    async def code(self) -> grpc.StatusCode:
        """Wait for the end; return the status code."""
        return (await self._final()).code

    async def details(self) -> str:
        """Wait for the end; return the text of the status."""
        return (await self._final()).details

    async def debug_error_string(self) -> str:
        """Wait for the end; there is nothing more to say of it."""
        return (await self._final()).details

    async def wait_for_connection(self) -> None:
        """Return at once: there is no connection."""

    async def write(self, request: Any) -> None:
        """Send one message of a request stream; waits while the handler is behind."""
        if self._status is not None:
            self._raise_for_status()
            raise asyncio.InvalidStateError("RPC already finished.")
        if self.fits(data := self._method.encode(request)):
            await self.requests.put(data)
        self._raise_for_status()

    async def done_writing(self) -> None:
        """End the request stream."""
        self.requests.close(drop=False)

    async def read(self) -> Any:
        """Return the next message of a response stream, or `grpc.aio.EOF`."""
        data = await self._next()
        if data is not END:
            return self._method.decode(data)
        self._raise_for_status()
        return grpc.aio.EOF

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def __await__(self) -> Generator[Any, None, Any]:
        return self._unary().__await__()

    async def _unary(self) -> Any:
        if self._answer is END:  # a call may be awaited more than once
            data = await self._next()
            self._raise_for_status()
            self._answer = self._method.decode(data)
        return self._answer

    async def _next(self) -> Any:
        try:
            return await self.responses.get()
        except asyncio.CancelledError:
            self.cancel()  # as grpc.aio ends a call whose reader is cancelled
            raise

    async def _send_all(self, requests: Any) -> None:
        try:
            if hasattr(requests, "__aiter__"):
                async for request in requests:
                    await self.write(request)
            else:
                for request in requests:
                    await self.write(request)
            await self.done_writing()
        except grpc.aio.AioRpcError:
            return  # the reader sees the status
        except Exception as error:
            self.end(CallStatus(_CANCELLED, f"the request iterator failed: {error}"))

    def _expire(self) -> None:
        self.end(CallStatus(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _raise_for_status(self) -> None:
        status = self._status
        if status is None or status.code is _OK:
            return
        if status is LOCALLY_CANCELLED:
            raise asyncio.CancelledError  # as grpc.aio does
        raise grpc.aio.AioRpcError(
            status.code, grpc.aio.Metadata(*(self._initial or ())), grpc.aio.Metadata(*status.trailing), status.details
        )

    async def _final(self) -> CallStatus:
        await self._until(self.done)
        assert self._status is not None  # noqa: S101
        return self._status

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _notify(self) -> None:
        for waiter in self._waiters:
            wake(waiter)
        self._waiters.clear()


class LocalChannel(grpc.aio.Channel):
    """A channel to a LocalServer. Generated stubs take it as they take a network channel."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._open: set[LocalCall] = set()
        self._closing = asyncio.Event()

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the callable of a unary method."""
        return self._callable(method, False, *args, **kwargs)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the callable of a server-streaming method."""
        return self._callable(method, False, *args, **kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the callable of a client-streaming method."""
        return self._callable(method, True, *args, **kwargs)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the callable of a bidirectional method."""
        return self._callable(method, True, *args, **kwargs)

    def _callable(
        self,
        path: str,
        streams_requests: bool,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        **_: Any,
    ) -> Any:
        method = _Method(path, streams_requests, request_serializer or bytes, response_deserializer or bytes)

        def call(request: Any = None, *, timeout: float | None = None, metadata: Any = None, **_: Any) -> LocalCall:
            if self._closing.is_set():
                raise grpc.aio.UsageError("Channel is closed.")
            started = LocalCall(self._server, method, timeout, metadata).start(request)
            if not started.done():
                self._open.add(started)
                started.add_done_callback(self._open.discard)
            return started

        return call

    async def close(self, grace: float | None = None) -> None:
        """Refuse new calls and cancel those that are not over after the grace."""
        self._closing.set()
        calls = list(self._open)
        if calls and grace:
            await asyncio.wait([asyncio.ensure_future(call.code()) for call in calls], timeout=grace)
        for call in calls:
            call.cancel()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: ARG002
        """Return READY until closed."""
        return grpc.ChannelConnectivity.SHUTDOWN if self._closing.is_set() else grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when the state is another; a local channel changes once, when it is closed."""
        if self.get_state() is last_observed_state:
            await self._closing.wait()

    async def channel_ready(self) -> None:
        """Return at once."""

    async def __aenter__(self) -> LocalChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _measured(metadata: Metadata) -> int:
    """Return the size of metadata, checked as gRPC does: keys in lower case, bytes under `-bin` keys, else text."""
    size = 0
    for key, value in metadata:
        if isinstance(value, bytes) is not _is_binary(key):
            raise ValueError(f"metadata was invalid: {key}")
        # HTTP/2 counts 32 bytes more for each header (RFC 9113, section 6.5.2).
        size += len(key) + len(value) + 32
    return size


@lru_cache(maxsize=1024)
def _is_binary(key: str) -> bool:
    if key != key.lower():
        raise ValueError(f"metadata was invalid: {key}")
    return key.endswith("-bin")
