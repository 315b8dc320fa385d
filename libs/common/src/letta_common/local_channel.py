"""gRPC inside one process: generated stubs call handlers directly, with the semantics of the network kept."""

from __future__ import annotations

import asyncio
import contextvars
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from inspect import isasyncgen
from typing import Any, NoReturn

import grpc
import grpc.aio

STREAM_QUEUE = 16
_MAX_MESSAGE = 16 << 20
_MAX_METADATA = 16 << 10
_OK, _CANCELLED, _EXHAUSTED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED
_END = object()
_Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class _Details:
    """The call details that interceptors see."""

    method: str
    invocation_metadata: _Metadata


@dataclass(frozen=True, slots=True)
class _Method:
    """A method as a stub knows it."""

    path: str
    streams_requests: bool
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


@dataclass(frozen=True, slots=True)
class _Status:
    code: grpc.StatusCode
    details: str = ""
    trailing: _Metadata = ()


_LOCALLY_CANCELLED = _Status(_CANCELLED, "Locally cancelled by application!")


class LocalServer:
    """Takes servicers as a grpc.aio server does, and runs their handlers for LocalChannels."""

    def __init__(
        self,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        *,
        max_message: int = _MAX_MESSAGE,
        max_metadata: int = _MAX_METADATA,
    ) -> None:
        self.max_message = max_message
        self.max_metadata = max_metadata
        self.methods: dict[str, Any] = {}
        self._stopped = False
        self._running: set[asyncio.Task[None]] = set()
        self._continuation = self._find
        for interceptor in reversed(interceptors):
            self._continuation = _chained(interceptor, self._continuation)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Take the handlers of a service; generated code calls this."""
        self.methods.update({f"/{service_name}/{name}": handler for name, handler in method_handlers.items()})

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        """Ignore: generated code registers the same handlers by name too."""

    def start_call(self, call: LocalCall) -> asyncio.Task[None] | None:
        """Run the handler of a call in a task and a context of its own; None when the server has stopped."""
        if self._stopped:
            return None
        task = asyncio.get_running_loop().create_task(self._serve(call), context=contextvars.Context())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def stop(self, grace: float | None = None) -> None:
        """Refuse new calls, wait for those in flight, cancel what is left after the grace."""
        self._stopped = True
        if self._running and grace:
            await asyncio.wait(self._running, timeout=grace)
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def _find(self, details: Any) -> Any:
        return self.methods.get(details.method)

    async def _serve(self, call: LocalCall) -> None:
        context = LocalContext(call)
        try:
            handler = await self._continuation(_Details(call.method, call.metadata))
            if handler is None:
                call.finish(_Status(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
                return
            await _handle(handler, call, context)
            call.finish(context.status(_OK))
        except grpc.aio.AbortError:
            call.finish(context.status(grpc.StatusCode.UNKNOWN))
        except asyncio.CancelledError:
            call.finish(_Status(_CANCELLED, "the handler was cancelled"))
        except Exception as error:  # what a server without a boundary answers
            call.finish(_Status(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}"))


def _chained(interceptor: Any, continuation: Any) -> Any:
    async def step(details: Any) -> Any:
        return await interceptor.intercept_service(continuation, details)

    return step


async def _handle(handler: Any, call: LocalCall, context: LocalContext) -> None:
    """Run a handler of any arity; responses leave through `context.write`."""
    context.decode, context.encode = handler.request_deserializer, handler.response_serializer
    argument: Any = context.requests() if handler.request_streaming else await context.read()
    if not handler.response_streaming:
        behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
        await context.write(await behaviour(argument, context))
        return
    behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
    responses = behaviour(argument, context)
    if not isasyncgen(responses):
        await responses
        return
    async with aclosing(responses):
        async for response in responses:
            await context.write(response)


class LocalContext(grpc.aio.ServicerContext[Any, Any]):
    """The server's side of a call."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]

    def __init__(self, call: LocalCall) -> None:
        self._call = call
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailing: _Metadata = ()

    async def read(self) -> Any:
        data = await self._call.requests.get()
        if data is _END:
            return grpc.aio.EOF
        return self.decode(data)

    async def requests(self) -> AsyncIterator[Any]:
        """Iterate over the request messages."""
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def write(self, message: Any) -> None:
        data = self.encode(message)
        if not self._call.fits(data):
            raise grpc.aio.AbortError("the message is too large")
        self._call.send_initial(())
        await self._call.responses.put(data)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        self._call.send_initial(tuple(initial_metadata))

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        if code is _OK:
            raise ValueError("abort() with status code OK")
        self._code, self._details = code, details
        self._trailing = tuple(trailing_metadata) or self._trailing
        raise grpc.aio.AbortError(details)

    async def abort_with_status(self, status: Any) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata)

    def status(self, default: grpc.StatusCode) -> _Status:
        """Return how the call ends."""
        return _Status(self._code or default, self._details, self._trailing)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._trailing = tuple(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._trailing

    def invocation_metadata(self) -> Any:
        return self._call.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> Any:
        return self._code

    def set_details(self, details: str) -> None:
        self._details = details

    def details(self) -> str:
        return self._details

    def time_remaining(self) -> Any:
        deadline = self._call.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def add_done_callback(self, callback: Any) -> None:
        self._call.add_done_callback(lambda _: callback(self))

    def cancelled(self) -> bool:
        return self._call.cancelled()

    def done(self) -> bool:
        return self._call.done()

    def peer(self) -> str:
        return "local"

    def peer_identities(self) -> Any:
        return None

    def peer_identity_key(self) -> Any:
        return None

    def auth_context(self) -> Any:
        return {}

    def set_compression(self, compression: Any) -> None:
        """Do nothing: messages do not leave the process."""

    def disable_next_message_compression(self) -> None:
        """Do nothing: messages do not leave the process."""


class _Pipe:
    """A bounded queue with one writer and one reader that can be closed."""

    __slots__ = ("_closed", "_items", "_reader", "_writer")

    def __init__(self) -> None:
        self._items: deque[bytes] = deque()
        self._closed = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    async def put(self, item: bytes) -> None:
        """Add an item; waits while the queue is full. A closed queue drops it."""
        while len(self._items) >= STREAM_QUEUE and not self._closed:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer
        if not self._closed:
            self._items.append(item)
            _wake(self._reader)

    def load(self, item: bytes) -> None:
        """Put in the only item there will be."""
        self._items.append(item)
        self._closed = True

    async def get(self) -> Any:
        """Take the next item; `_END` after the last one of a closed queue."""
        while not self._items:
            if self._closed:
                return _END
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        item = self._items.popleft()
        _wake(self._writer)
        return item

    def close(self, *, drop: bool) -> None:
        """Accept no more; `drop` forgets what nobody has read."""
        self._closed = True
        if drop:
            self._items.clear()
        _wake(self._reader)
        _wake(self._writer)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


class LocalCall:
    """The client's side of a call: awaited for a unary response, iterated or read for a stream."""

    def __init__(self, server: LocalServer, method: _Method, timeout: float | None, metadata: Any) -> None:
        self.method = method.path
        self.metadata = _checked(metadata)
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.requests, self.responses = _Pipe(), _Pipe()
        self._method = method
        self._server = server
        self._initial: _Metadata | None = None
        self._status: _Status | None = None
        self._task: asyncio.Task[None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._answer: Any = _END
        self._waiters: list[asyncio.Future[None]] = []
        self._callbacks: list[Callable[[Any], None]] = []

    def start(self, request: Any) -> LocalCall:
        """Send the request, or begin to send the stream of requests, and start the handler."""
        if _size(self.metadata) > self._server.max_metadata:
            self.finish(_Status(_EXHAUSTED, "received metadata size exceeds hard limit"))
        elif self.deadline is not None and self.deadline <= time.monotonic():
            self.finish(_Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
        elif self._method.streams_requests:
            self._task = self._server.start_call(self)
            if request is not None:
                self._pump = asyncio.get_running_loop().create_task(self._send_all(request))
        elif self.fits(data := self._method.encode(request)):
            self.requests.load(data)
            self._task = self._server.start_call(self)
        if self._status is None and self._task is None:
            self.finish(_Status(grpc.StatusCode.UNAVAILABLE, "the server has stopped"))
        elif self._status is None and self.deadline is not None:
            left = self.deadline - time.monotonic()
            self._expiry = asyncio.get_running_loop().call_later(left, self._expire)
        return self

    def fits(self, data: bytes) -> bool:
        """Say whether a message is within the limit; one that is not ends the call."""
        if len(data) > (limit := self._server.max_message):
            self.end(_Status(_EXHAUSTED, f"Sent message larger than max ({len(data)} vs. {limit})"))
            return False
        return True

    def send_initial(self, metadata: _Metadata) -> None:
        """Take the initial metadata from the handler; the first one counts."""
        if self._initial is None:
            self._initial = metadata
            self._notify()

    def finish(self, status: _Status, *, drop: bool = False) -> None:
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
        self._notify()
        for callback in self._callbacks:
            callback(self)

    def end(self, status: _Status) -> None:
        """End the call at once: unread messages are dropped and the handler is cancelled."""
        self.finish(status, drop=True)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def cancel(self) -> bool:
        """End the call from the client's side."""
        if self._status is not None:
            return False
        self.end(_LOCALLY_CANCELLED)
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
        if data is not _END:
            return self._method.decode(data)
        self._raise_for_status()
        return grpc.aio.EOF

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def __await__(self) -> Generator[Any, None, Any]:
        return self._unary().__await__()

    async def _unary(self) -> Any:
        if self._answer is _END:
            data = await self._next()
            self._raise_for_status()
            self._answer = self._method.decode(data)
        return self._answer

    async def _next(self) -> Any:
        try:
            return await self.responses.get()
        except asyncio.CancelledError:
            self.cancel()
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
            self.end(_Status(_CANCELLED, f"the request iterator failed: {error}"))

    def _expire(self) -> None:
        self.end(_Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _raise_for_status(self) -> None:
        status = self._status
        if status is None or status.code is _OK:
            return
        if status is _LOCALLY_CANCELLED:
            raise asyncio.CancelledError  # as grpc.aio does
        raise grpc.aio.AioRpcError(
            status.code, grpc.aio.Metadata(*(self._initial or ())), grpc.aio.Metadata(*status.trailing), status.details
        )

    async def _final(self) -> _Status:
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
            _wake(waiter)
        self._waiters.clear()


class LocalChannel(grpc.aio.Channel):
    """A channel to a LocalServer. Generated stubs take it as they take a network channel."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._open: weakref.WeakSet[LocalCall] = weakref.WeakSet()
        self._closed = False

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
            if self._closed:
                raise grpc.aio.UsageError("Channel is closed.")
            started = LocalCall(self._server, method, timeout, metadata).start(request)
            self._open.add(started)
            return started

        return call

    async def close(self, grace: float | None = None) -> None:
        """Refuse new calls and cancel those that are not over after the grace."""
        self._closed = True
        calls = [call for call in self._open if not call.done()]
        if calls and grace:
            await asyncio.wait([asyncio.ensure_future(call.code()) for call in calls], timeout=grace)
        for call in calls:
            call.cancel()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return READY until closed."""
        return grpc.ChannelConnectivity.SHUTDOWN if self._closed else grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when the state is another; a local channel changes once, when it is closed."""
        while self.get_state() is last_observed_state:
            await asyncio.sleep(0.05)

    async def channel_ready(self) -> None:
        """Return at once."""

    async def __aenter__(self) -> LocalChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _checked(metadata: Any) -> _Metadata:
    """Check metadata as gRPC does: lower-case keys, bytes under `-bin` keys, text under others."""
    checked = tuple((key, value) for key, value in metadata or ())
    for key, value in checked:
        if key != key.lower() or isinstance(value, bytes) != key.endswith("-bin"):
            raise ValueError(f"metadata was invalid: {key}")
    return checked


def _size(metadata: _Metadata) -> int:
    return sum(len(key) + len(value) + 32 for key, value in metadata)
