"""Calling other services: one channel a peer, deadlines and identity passed on, statuses turned back into errors."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool
from prometheus_client import Counter

from letta_common.actor import current_request
from letta_common.clock import Clock, SystemClock
from letta_common.errors import (
    DatabaseUnavailable,
    DeadlineExceeded,
    Overloaded,
    RequestCancelled,
    ServiceUnavailable,
)
from letta_common.process.settings import Settings
from letta_rpc.boundary import ACTOR_KEY, REPORT_SECONDS, REQUEST_ID_KEY, SERVICE_KEY
from letta_rpc.rpc_errors import from_rpc_error
from letta_rpc.service_identity import ServiceIdentity

DEFAULT_TIMEOUT = 30.0
# Three pauses of 0.05, 0.15 and 0.45 s, within which the channel reconnects or turns to another replica.
_ATTEMPTS = 4
_PAUSE = 0.05
_JITTER = random.Random()  # noqa: S311
# Errors that say the call had no effect or may be repeated; only idempotent methods have more than one attempt.
_RETRIED = (ServiceUnavailable, DatabaseUnavailable, Overloaded)
_CALLS = Counter("letta_client_rpc", "Calls made to other services.", ["method"])


def shared_options(settings: Settings) -> list[tuple[str, Any]]:
    """Return the options that channels and servers share."""
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # Signed actors and explained statuses travel as metadata. gRPC's 8 KiB would cut long explanations.
        ("grpc.max_metadata_size", 16 << 10),
        ("grpc.absolute_max_metadata_size", 32 << 10),
        ("grpc.enable_channelz", int(bool(settings.channelz_bind))),
    ]


def bare_channel(target: str, settings: Settings) -> grpc.aio.Channel:
    """Return a channel to a service without identity, made once a process."""
    options = [
        *shared_options(settings),
        ("grpc.lb_policy_name", "round_robin"),
        # A peer that vanished without closing is found by a ping; servers of ours allow one each 10 s.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 250),  # a service that is back is used at once; to ask costs a SYN
        # `_Unary` repeats calls: it knows which methods are idempotent and what `retry_after` asks for.
        ("grpc.enable_retries", 0),
    ]
    if settings.tls_ca is None:
        return grpc.aio.insecure_channel(target, options)
    credentials = grpc.ssl_channel_credentials(
        settings.tls_ca.read_bytes(),
        settings.tls_key.read_bytes() if settings.tls_key else None,
        settings.tls_certificate.read_bytes() if settings.tls_certificate else None,
    )
    return grpc.aio.secure_channel(target, credentials, options)


def connect(target: str, settings: Settings, *, caller: str, clock: Clock | None = None) -> PeerChannel:
    """Return a channel to a service, made once a process, that speaks as `caller`."""
    return PeerChannel(bare_channel(target, settings), caller, settings.secret(), clock)


@asynccontextmanager
async def streaming(call: Any) -> AsyncIterator[Any]:
    """Read a stream and cancel it when the block is left, however it is left; leaving a loop alone does not."""
    try:
        yield call
    finally:
        call.cancel()


class PeerChannel(grpc.aio.Channel):
    """A channel, over the network or local, whose calls carry identity and deadline and raise AppError."""

    def __init__(self, inner: grpc.aio.Channel, caller: str, secret: bytes, clock: Clock | None = None) -> None:
        self._inner = inner
        self._identity = ServiceIdentity(caller, secret, clock or SystemClock())

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the callable of a method; a call is a coroutine."""
        return _Unary(self._inner.unary_unary(method, *args, **kwargs), method, self._identity)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the callable of a server-streaming method."""
        return _Streaming(self._inner.unary_stream(method, *args, **kwargs), method, self._identity)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the callable of a client-streaming method."""
        return _Unary(self._inner.stream_unary(method, *args, **kwargs), method, self._identity)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the callable of a bidirectional method."""
        return _Streaming(self._inner.stream_stream(method, *args, **kwargs), method, self._identity)

    async def close(self, grace: float | None = None) -> None:
        """Close the channel beneath."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the channel beneath."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state of the channel beneath is another."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the channel beneath is connected."""
        await self._inner.channel_ready()

    async def __aenter__(self) -> PeerChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Calls:
    """What unary and streaming callables share."""

    def __init__(self, invoke: Callable[..., Any], method: str, identity: ServiceIdentity) -> None:
        self._invoke = invoke
        self._method = method.lstrip("/")
        self._identity = identity
        self._count = _CALLS.labels(self._method)
        self._attempts = _ATTEMPTS if _idempotent(method) else 1

    def _begin(self, request: Any, timeout: float | None, metadata: Any) -> Any:
        serving = current_request()
        if serving.deadline is not None:
            # Each hop keeps some time for itself: the callee's status comes while this handler may still answer.
            left = serving.deadline - REPORT_SECONDS - time.monotonic()
            timeout = left if timeout is None else min(timeout, left)
            if timeout <= 0:
                raise DeadlineExceeded(f"no time is left to call {self._method}")
        identity = self._identity.of(self._method, serving.signed_actor)
        sent = [(SERVICE_KEY, identity), *(metadata or ())]
        if serving.request_id:
            sent.append((REQUEST_ID_KEY, serving.request_id))
        if serving.signed_actor:
            sent.append((ACTOR_KEY, serving.signed_actor))
        self._count.inc()
        return self._invoke(request, timeout=timeout, metadata=tuple(sent))


class _Unary(_Calls):
    async def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109
        metadata: Any = None,
        **_: Any,
    ) -> Any:
        attempt = 1
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            try:
                return await _mapped(self._begin(request, left, metadata))
            except _RETRIED as error:
                pause = float(error.metadata.get("retry_after", _PAUSE * 3 ** (attempt - 1))) * _JITTER.uniform(
                    0.8, 1.2
                )
                if attempt == self._attempts or (deadline is not None and time.monotonic() + pause >= deadline):
                    raise
            await asyncio.sleep(pause)
            attempt += 1


class _Streaming(_Calls):
    def __call__(self, request: Any, *, timeout: float | None = None, metadata: Any = None, **_: Any) -> StreamCall:
        return StreamCall(self._begin(request, timeout, metadata))


class StreamCall:
    """A running stream. Read it inside `streaming(...)`, which cancels it at the end."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            message = await self.read()
            if message is grpc.aio.EOF:
                return
            yield message

    async def read(self) -> Any:
        """Return the next message, or `grpc.aio.EOF`."""
        return await _mapped(self._call.read())

    def cancel(self) -> bool:
        """End the call; the callee's handler is cancelled."""
        return bool(self._call.cancel())

    def done(self) -> bool:
        """Say whether the call is over."""
        return bool(self._call.done())


async def _mapped(work: Awaitable[Any]) -> Any:
    """Await, turning a status into the error it stands for."""
    try:
        return await work
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RequestCancelled(
            "the called service cancelled the call"
        ) from error  # grpc.aio raises it for status CANCELLED


def _idempotent(method: str) -> bool:
    try:
        found = descriptor_pool.Default().FindMethodByName(method.lstrip("/").replace("/", "."))
    except KeyError:
        return False
    return bool(found.GetOptions().idempotency_level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN)
