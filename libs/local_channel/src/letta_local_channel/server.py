"""The server's side of gRPC inside one process: handlers run as a grpc.aio server would run them."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from inspect import isasyncgen
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import grpc
import grpc.aio

if TYPE_CHECKING:
    from letta_local_channel.channel import LocalCall

# Messages that a writer may be ahead of its reader: the place of HTTP/2's flow control.
STREAM_QUEUE = 16
# As `letta_rpc` sets them for channels over the network, so that nothing works in one process alone.
_MAX_MESSAGE = 16 << 20
_MAX_METADATA = 16 << 10
_OK, _CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED
END = object()
Metadata = Sequence[tuple[str, str | bytes]]


class _Details(NamedTuple):
    """The call details that interceptors see."""

    method: str
    invocation_metadata: Metadata


class CallStatus(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    details: str = ""
    trailing: Metadata = ()


LOCALLY_CANCELLED = CallStatus(_CANCELLED, "Locally cancelled by application!")


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
            self.intercept(interceptor)

    def intercept(self, interceptor: grpc.aio.ServerInterceptor) -> None:
        """Put an interceptor around those there are: for a boundary whose channel to auth ends at this server."""
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
        # An empty context: over the network nothing of the caller's would come along either.
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
                call.finish(CallStatus(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
                return
            await _handle(handler, context)
            call.finish(context.status(_OK))
        except grpc.aio.AbortError:
            call.finish(context.status(grpc.StatusCode.UNKNOWN))
        except asyncio.CancelledError:
            call.finish(CallStatus(_CANCELLED, "the handler was cancelled"))
        except Exception as error:  # what a server without a boundary answers
            call.finish(CallStatus(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}"))


def _chained(interceptor: Any, continuation: Any) -> Any:
    async def step(details: Any) -> Any:
        return await interceptor.intercept_service(continuation, details)

    return step


async def _handle(handler: Any, context: LocalContext) -> None:
    """Run a handler of any arity; responses leave through `context.write`."""
    context.decode, context.encode = handler.request_deserializer or bytes, handler.response_serializer
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
        self._trailing: Metadata = ()

    async def read(self) -> Any:
        data = await self._call.requests.get()
        if data is END:
            return grpc.aio.EOF
        return self.decode(data)

    async def requests(self) -> AsyncIterator[Any]:
        """Iterate over the request messages."""
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def write(self, message: Any) -> None:
        data = self.encode(message)
        if not self._call.fits(data):
            raise grpc.aio.AbortError("the message is too large")  # `fits` has ended the call already
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

    def status(self, default: grpc.StatusCode) -> CallStatus:
        """Return how the call ends."""
        return CallStatus(self._code or default, self._details, self._trailing)

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


class Pipe:
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
            if self._reader is not None:
                wake(self._reader)

    def load(self, item: bytes) -> None:
        """Put in the only item there will be."""
        self._items.append(item)
        self._closed = True

    async def get(self) -> Any:
        """Take the next item; `END` after the last one of a closed queue."""
        while not self._items:
            if self._closed:
                return END
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        item = self._items.popleft()
        if self._writer is not None:
            wake(self._writer)
        return item

    def close(self, *, drop: bool) -> None:
        """Accept no more; `drop` forgets what nobody has read."""
        self._closed = True
        if drop:
            self._items.clear()
        for waiter in (self._reader, self._writer):
            if waiter is not None:
                wake(waiter)


def wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
