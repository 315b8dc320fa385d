"""The one server interceptor: what every call passes on its way in and every error on its way out."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from inspect import isasyncgenfunction
from typing import Any

import grpc
import grpc.aio
import structlog
from cachetools import LRUCache
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from prometheus_client import Counter, Histogram
from protovalidate import Validator

from letta.jsonmap.v1 import annotations_pb2
from letta_common.actor import Request, bind_request, current_request_id
from letta_common.clock import Clock
from letta_common.errors import (
    AppError,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    OperationUnimplemented,
    Overloaded,
    RateLimited,
    Unauthenticated,
    ValidationFailed,
)
from letta_common.fair_slots import FairSlots, Shares
from letta_common.values.ids import uuid7
from letta_rpc.open_methods import MALFORMED, for_all
from letta_rpc.page_bytes import cut_page, is_list
from letta_rpc.requests import violations
from letta_rpc.rpc_errors import DETAILS_KEY, GRPC_CODES, MOST_VIOLATIONS, from_rpc_error, to_status
from letta_rpc.service_identity import ServiceIdentities
from letta_rpc.verdicts import CredentialExchange, Verdict, Verifier

ACTOR_KEY, SERVICE_KEY, REQUEST_ID_KEY = "x-letta-actor-bin", "x-letta-service-bin", "x-request-id"
COMPAT_KEY, COMPAT = "x-letta-compat", "v1"
# A call with less time than this would most likely end in the middle of its work, so it is refused before it begins.
FLOOR_SECONDS = 0.1
# A handler ends this much before its caller gives up, so that the caller gets our status and not its own timeout.
REPORT_SECONDS = 0.02
RETRY_SECONDS = "1"
_SEND = "send a credential: `authorization: Bearer <API key>`"
_OPEN = ("grpc.health.", "grpc.reflection.")
# The longest that a revoked key goes on working at a process that has just used it.
_CREDENTIAL_NS = 30_000_000_000
_MAX_CREDENTIALS = 4096
# A caller's id is written to logs and sent back in metadata: no line break and nothing outside ASCII may pass.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# Bounds what is hashed and sent to the auth service, which alone knows how keys and ids of users look.
_PRINTABLE = re.compile(r"[\x21-\x7e]{0,4096}")
_CALLS = Counter("letta_rpc", "Calls served, by result.", ["service", "method", "code"])
_SECONDS = Histogram("letta_rpc_seconds", "Time a call took to serve.", ["service", "method"])
_BEYOND = Counter("letta_rpc_beyond_share", "Calls refused because their organization had its share.", ["service"])
_log = structlog.get_logger("letta.rpc")
_Context = grpc.aio.ServicerContext[Any, Any]
Read = Callable[[bytes], Any]


@dataclass(frozen=True, slots=True)
class Method:
    """What the contract says of a method."""

    service: str
    name: str
    internal: bool = False
    scopes: tuple[str, ...] = ("write",)
    """A caller from outside needs one of them, or `admin`."""
    request_type: type[Any] | None = None
    paged: bool = False

    @classmethod
    def of(cls, path: str) -> Method:
        """Read the descriptor of `/package.Service/Method`."""
        service, _, name = path.lstrip("/").partition("/")
        try:
            found = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
        except KeyError:
            # Not of this process's pool, such as a service that a test makes: it needs a credential that may write.
            return cls(service, name)
        options = found.GetOptions()
        mapping = options.Extensions[annotations_pb2.method]
        reads = options.idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
        return cls(
            service,
            name,
            internal=mapping.internal,
            scopes=tuple(mapping.scopes) or ("read" if reads else "write",),
            request_type=message_factory.GetMessageClass(found.input_type),
            paged=not mapping.internal and is_list(found.input_type, found.output_type),
        )


class Boundary(grpc.aio.ServerInterceptor):
    """Identifies the caller, checks the request, bounds its time, and turns errors into statuses."""

    def __init__(
        self,
        verifier: Verifier,
        exchange: CredentialExchange,
        *,
        secret: bytes,
        clock: Clock,
        dev_mode: bool = False,
        most: int = 0,
        most_of_one: int = 0,
    ) -> None:
        self._verifier = verifier
        self._exchange = exchange
        self._clock = clock
        self._dev_mode = dev_mode
        self._most = most or sys.maxsize
        self._in_flight = 0
        self._shares = FairSlots(Shares(tenant_slots=most_of_one), "calls")
        self._validator = Validator()
        self._wrapped: dict[str, tuple[object, Any]] = {}
        self._services = ServiceIdentities(secret, clock)
        self._credentials: LRUCache[bytes, tuple[bytes, Verdict, float]] = LRUCache(_MAX_CREDENTIALS)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of a call; the wrapper is made once for each method."""
        handler = await continuation(handler_call_details)
        path = handler_call_details.method
        known, wrapped = self._wrapped.get(path, (None, None))
        if known is handler:
            return wrapped
        if handler is None:
            return handler
        wrapped = for_all(handler) if path.lstrip("/").startswith(_OPEN) else self._wrap(path, handler)
        self._wrapped[path] = (handler, wrapped)
        return wrapped

    def warm(self, paths: Sequence[str]) -> None:
        """Compile the validation rules of these methods, so that no call pays for it."""
        for path in paths:
            request_type = Method.of(path).request_type
            if request_type is not None:
                self._validator.collect_violations(request_type())

    def _wrap(self, path: str, handler: Any) -> Any:
        method = Method.of(path)
        if handler.request_streaming and handler.response_streaming:
            raise NotImplementedError(f"{path}: the boundary serves no streams both ways")
        read = handler.request_deserializer
        if handler.request_streaming:
            uploading = self._uploading(method, read, handler.stream_unary)
            return grpc.stream_unary_rpc_method_handler(uploading, None, handler.response_serializer)
        make, behaviour = (
            (grpc.unary_stream_rpc_method_handler, self._streaming(method, read, handler.unary_stream))
            if handler.response_streaming
            else (grpc.unary_unary_rpc_method_handler, self._unary(method, read, handler.unary_unary))
        )
        return make(behaviour, None, handler.response_serializer)  # what cannot be read is refused within the call

    def _unary(self, method: Method, read: Read, inner: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def serve(data: bytes, context: _Context, metadata: dict[str, Any]) -> Any:
            bound = await self._admit(method, context, metadata)
            with self._share(method, bound):
                request = self._read(read, data, bound)
                answer = await _within(bound.deadline, inner(request, context))
            if method.paged:
                cut_page(request, answer)
            return answer

        return self._guard(method, serve)

    def _streaming(self, method: Method, read: Read, inner: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def write_all(request: Any, context: _Context) -> None:
            async with aclosing(inner(request, context)) as responses:
                async for response in responses:
                    await context.write(response)

        # gRPC allows both shapes of streaming handlers: one yields its answers, the other writes them to the context.
        write = write_all if isasyncgenfunction(inner) else inner

        async def serve(data: bytes, context: _Context, metadata: dict[str, Any]) -> None:
            bound = await self._admit(method, context, metadata)
            with self._share(method, bound):
                request = self._read(read, data, bound)
                await _within(bound.deadline, write(request, context))

        return self._guard(method, serve)

    def _uploading(
        self, method: Method, read: Read, inner: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        async def serve(stream: AsyncIterator[bytes], context: _Context, metadata: dict[str, Any]) -> Any:
            bound = await self._admit(method, context, metadata)

            async def requests() -> AsyncGenerator[Any, None]:
                async for data in stream:
                    yield self._read(read, data, bound)

            with self._share(method, bound):
                async with aclosing(requests()) as each:
                    return await _within(bound.deadline, inner(each, context))

        return self._guard(method, serve)

    def _guard(self, method: Method, serve: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Count and time the call, and turn what it raises into a status."""
        counts = {code: _CALLS.labels(method.service, method.name, code.name) for code in grpc.StatusCode}
        seconds = _SECONDS.labels(method.service, method.name)

        async def guarded(request: Any, context: _Context) -> Any:
            begun = time.perf_counter()
            code = grpc.StatusCode.CANCELLED  # unless something else happens below
            # A repeated key keeps its last value; identity and actor are read from this one dict, so they agree.
            metadata: dict[str, Any] = dict(context.invocation_metadata() or ())
            admitted = not (context.peer() == "local" and SERVICE_KEY in metadata)  # which is work that was admitted
            self._in_flight += admitted
            try:
                if admitted:
                    self._check_room()
                answer = await serve(request, context, metadata)
            # The handler has set its own status by `context.abort`; gRPC does not say here which one it was.
            except grpc.aio.AbortError:
                code = grpc.StatusCode.UNKNOWN
                raise
            except Exception as error:
                failure = _failure(method, error)
                code = GRPC_CODES[failure.code]
                return await _report(failure, context)
            else:
                code = grpc.StatusCode.OK
                return answer
            finally:
                self._in_flight -= admitted
                seconds.observe(time.perf_counter() - begun)
                counts[code].inc()

        return guarded

    def _check_room(self) -> None:
        if self._in_flight > self._most:
            raise Overloaded("too many calls at once; try again", retry_after=RETRY_SECONDS)

    @contextmanager
    def _share(self, method: Method, bound: Request) -> Iterator[None]:
        """Hold one of the calls that an organization may have at once; what services pass on belongs to one already."""
        if bound.caller or bound.actor is None:
            yield
            return
        grant = self._shares.try_take(bound.actor.organization_id)
        if grant is None:
            _BEYOND.labels(method.service).inc()
            text = "the organization has as many calls and streams at once as it may; try again when some ended"
            raise RateLimited(text, retry_after=RETRY_SECONDS)
        try:
            yield
        finally:
            self._shares.give(grant)

    async def _admit(self, method: Method, context: _Context, metadata: Mapping[str, Any]) -> Request:
        """Identify the caller; return who calls and until when the handler may work."""
        given = metadata.get(REQUEST_ID_KEY, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid7())
        left = context.time_remaining()
        deadline = None if left is None else time.monotonic() + left - REPORT_SECONDS
        # Bound before anything can fail, so that the log and the status of a refusal carry the request id.
        bind_request(Request(request_id=request_id, deadline=deadline))
        if left is not None and left < FLOOR_SECONDS:
            raise DeadlineExceeded(f"{left * 1000:.0f} ms are too little to begin; allow more time")
        caller = self._caller(method, metadata)
        if method.internal and not caller:
            # gRPC's own words for an unknown method: a caller from outside cannot tell which internal methods exist.
            raise OperationUnimplemented("Method not found!")
        signed, verdict = await self._identify(metadata, optional=method.internal)
        if verdict is not None and not method.internal:
            verdict.actor.require(*method.scopes)
        actor = None if verdict is None else verdict.actor
        bound = Request(actor, request_id, signed, deadline, caller, metadata.get(COMPAT_KEY) == COMPAT)
        bind_request(bound)
        return bound

    def _caller(self, method: Method, metadata: Mapping[str, Any]) -> str:
        """Return the service that makes the call, or an empty string. Only a service may say for whom it calls."""
        identity: bytes | None = metadata.get(SERVICE_KEY)
        if identity is not None:
            return self._services.name(identity, f"{method.service}/{method.name}", metadata.get(ACTOR_KEY, b""))
        if ACTOR_KEY in metadata and not method.internal:
            raise Unauthenticated(
                f"`{ACTOR_KEY}` is for services of this deployment, which show `{SERVICE_KEY}` with it; {_SEND}"
            )
        return ""

    async def _identify(self, metadata: Mapping[str, Any], *, optional: bool) -> tuple[bytes, Verdict | None]:
        # `_caller` ran before: here an actor comes from a service, or to a method that services alone may call.
        signed: bytes | None = metadata.get(ACTOR_KEY)
        if signed is not None:
            return signed, await self._verifier.verify(signed)
        scheme, _, credential = metadata.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and credential:
            if not _PRINTABLE.fullmatch(credential := credential.strip()):
                raise Unauthenticated("the credential is malformed")
            return await self._exchanged(credential, "")
        if optional:
            return b"", None
        if self._dev_mode:
            if not _PRINTABLE.fullmatch(user_id := metadata.get("user_id", "")):
                raise InvalidArgument("user_id should be user-<uuid>", field="user_id")
            return await self._exchanged("", user_id)
        raise Unauthenticated(_SEND)

    async def _exchanged(self, credential: str, user_id: str) -> tuple[bytes, Verdict]:
        """Exchange a credential for a signed context, at most once in 30 s. Only its hash is kept.

        Auth lets no context outlive its credential, so one that has expired is never taken from here.
        """
        key = hashlib.sha256(f"{credential}\0{user_id}".encode()).digest()
        now = self._clock.monotonic_ns()
        known = self._credentials.get(key)
        if known is not None and known[2] > now and known[1].expires_at > self._clock.now():
            return known[0], known[1]
        signed = await self._exchange.exchange(credential, user_id)
        verdict = await self._verifier.verify(signed)
        self._credentials[key] = (signed, verdict, now + _CREDENTIAL_NS)
        return signed, verdict

    def _read(self, read: Read, data: bytes, bound: Request) -> Any:
        """Return the request. What services pass on to each other was checked where it came in, or is of a model."""
        try:
            request = read(data)
        except DecodeError as error:
            raise InvalidArgument(MALFORMED) from error
        # A message may hold any number of broken values; one above the most says that there are more.
        fields = {} if bound.caller else dict(itertools.islice(violations(request), MOST_VIOLATIONS + 1))
        for found in self._validator.collect_violations(request):
            fields.setdefault(_path(found.proto.field), found.proto.message or found.proto.rule_id)
        if fields:
            text = "; ".join(f"{path}: {why}" if path else why for path, why in fields.items())
            raise ValidationFailed(text, **fields)
        return request


async def _within(deadline: float | None, work: Awaitable[Any]) -> Any:
    # What the work itself raises as TimeoutError is no deadline of the call; `expired` tells the two apart.
    scope = asyncio.timeout(None if deadline is None else deadline - time.monotonic())
    try:
        async with scope:
            return await work
    except TimeoutError as error:
        if scope.expired():
            raise DeadlineExceeded("the deadline passed before the work was done") from error
        raise


def _failure(method: Method, error: Exception) -> AppError:
    if isinstance(error, grpc.aio.AioRpcError):
        error = from_rpc_error(error)
    if isinstance(error, AppError) and not isinstance(error, InternalError):
        _log.debug("call refused", method=method.name, reason=error.reason, message=error.message)
        return error
    _log.error("call failed", service=method.service, method=method.name, exc_info=error)
    return InternalError("internal error; the log has the cause under the request id", request_id=current_request_id())


async def _report(failure: AppError, context: _Context) -> None:
    status = to_status(failure)
    trailing = ((DETAILS_KEY, status.SerializeToString()), (REQUEST_ID_KEY, current_request_id()))
    await context.abort(GRPC_CODES[failure.code], status.message, trailing)


def _path(field: Any) -> str:
    """Write the path of a field: `agent.tags[0].name`."""
    parts = []
    for element in field.elements if field is not None else ():
        subscript = element.subscript
        parts.append(element.field_name + ("" if subscript is None else f"[{subscript.value}]"))
    return ".".join(parts)
