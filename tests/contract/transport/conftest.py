"""A small service, described at run time, that does on request whatever a transport must cope with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from buf.validate import validate_pb2
from letta.jsonmap.v1 import annotations_pb2
from letta_common.actor import current_request
from letta_common.clock import Clock, SystemClock
from letta_common.errors import BlockNotFound
from letta_rpc.service import Service
from letta_rpc.service_identity import ServiceIdentity
from tests.support.rpc import SECRET, Identities, running

PACKAGE = "letta.probe.v1"
PATH = f"/{PACKAGE}.ProbeService/"
_FIELD = descriptor_pb2.FieldDescriptorProto


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="letta/probe/v1/probe.proto", package=PACKAGE, syntax="proto3")
    file.dependency.extend(["letta/jsonmap/v1/annotations.proto", "buf/validate/validate.proto"])
    for name in ("ProbeRequest", "ProbeResponse"):
        message = file.message_type.add(name=name)
        message.field.add(name="text", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
        message.field.add(name="count", number=2, type=_FIELD.TYPE_INT32, label=_FIELD.LABEL_OPTIONAL)
        message.field.add(name="data", number=3, type=_FIELD.TYPE_BYTES, label=_FIELD.LABEL_OPTIONAL)
        message.field.add(name="tags", number=4, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_REPEATED)
        message.field[1].options.Extensions[validate_pb2.field].int32.gte = 0
    service = file.service.add(name="ProbeService")
    for name, idempotency, streams in (
        ("Read", descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS, False),
        ("Write", descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN, False),
        ("Hidden", descriptor_pb2.MethodOptions.IDEMPOTENT, False),
        ("Stream", descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS, True),
    ):
        method = service.method.add(
            name=name,
            input_type=f".{PACKAGE}.ProbeRequest",
            output_type=f".{PACKAGE}.ProbeResponse",
            server_streaming=streams,
        )
        method.options.idempotency_level = idempotency
    service.method[2].options.Extensions[annotations_pb2.method].internal = True
    return file


def _messages() -> tuple[Any, Any]:
    pool = descriptor_pool.Default()
    try:
        found = pool.FindFileByName("letta/probe/v1/probe.proto")
    except KeyError:
        found = pool.AddSerializedFile(_file().SerializeToString()) and pool.FindFileByName(
            "letta/probe/v1/probe.proto"
        )
    names = found.message_types_by_name
    return tuple(message_factory.GetMessageClass(names[name]) for name in ("ProbeRequest", "ProbeResponse"))


Request, Response = _messages()


class ProbeServicer:
    """Does what `text` says; remembers what happened."""

    def __init__(self) -> None:
        self.calls = 0
        self.sent = 0
        self.request: Any = None
        self.seen: Any = None
        self.metadata: dict[str, Any] = {}
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()
        self.released = asyncio.Event()
        self.next: Any = None
        self.failures: list[Exception] = []

    async def unary(self, request: Any, context: Any) -> Any:
        self.calls += 1
        self.request = request
        self.seen, self.metadata = current_request(), dict(context.invocation_metadata())
        self.entered.set()
        if self.failures:
            raise self.failures.pop(0)
        await self._obey(request, context)
        return Response(text=request.text, count=request.count, data=request.data or bytes(request.count))

    async def stream(self, request: Any, context: Any) -> Any:
        self.calls += 1
        self.seen = current_request()
        try:
            for number in range(request.count):
                yield Response(text=request.text, count=number, data=request.data)
                self.sent += 1
            self.entered.set()
            await self._obey(request, context)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def _obey(self, request: Any, context: Any) -> None:
        match request.text:
            case "hang":
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
            case "forward" | "forward hang":
                await self.next.Read(Request(text=request.text.removeprefix("forward").strip()), timeout=60)
            case "wait":
                await self.released.wait()
            case "missing":
                raise BlockNotFound("block block-1 does not exist", block_id="block-1")
            case "bug":
                raise RuntimeError("secret detail")
            case "abort":
                await context.abort(grpc.StatusCode.CANCELLED, "done here")
            case "metadata":
                await context.send_initial_metadata((("x-first", "1"),))
                context.set_trailing_metadata((("x-last", "2"), ("x-raw-bin", b"\x00\xff")))


def add_to_server(servicer: ProbeServicer, server: Any) -> None:
    """Register as generated code does."""
    handlers = {
        name: make(behaviour, Request.FromString, Response.SerializeToString)
        for name, make, behaviour in (
            ("Read", grpc.unary_unary_rpc_method_handler, servicer.unary),
            ("Write", grpc.unary_unary_rpc_method_handler, servicer.unary),
            ("Hidden", grpc.unary_unary_rpc_method_handler, servicer.unary),
            ("Stream", grpc.unary_stream_rpc_method_handler, servicer.stream),
        )
    }
    name = f"{PACKAGE}.ProbeService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    server.add_registered_method_handlers(name, handlers)


class ProbeStub:
    """Calls as a generated stub does."""

    def __init__(self, channel: Any) -> None:
        for name, kind in (("Read", "unary"), ("Write", "unary"), ("Hidden", "unary"), ("Stream", "stream")):
            make = channel.unary_unary if kind == "unary" else channel.unary_stream
            call = make(
                PATH + name,
                request_serializer=Request.SerializeToString,
                response_deserializer=Response.FromString,
                _registered_method=True,
            )
            setattr(self, name, call)


def probe_service(servicer: ProbeServicer) -> Service:
    """Build the service."""
    return Service("probe", ((add_to_server, servicer),))


class HandClock(SystemClock):
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


@dataclass
class Probe:
    """A running probe service and two ways to call it."""

    servicer: ProbeServicer
    channel: Any
    identities: Identities
    transport: str
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        self.stub: Any = ProbeStub(self.channel)
        self.bare: Any = ProbeStub(self.channel._inner)

    def posing(self, signed: bytes, method: str = "Read") -> Any:
        """Return metadata of a genuine service that calls for the actor of this context."""
        secret = SECRET.encode()
        identity = ServiceIdentity("test", secret, self.clock).of(f"{PACKAGE}.ProbeService/{method}", signed)
        return ("x-letta-service-bin", identity), ("x-letta-actor-bin", signed)

    @staticmethod
    def ask(text: str = "", count: int = 0, data: bytes = b"") -> Any:
        return Request(text=text, count=count, data=data)


@pytest.fixture(params=["network", "local"])
def start(request: pytest.FixtureRequest) -> Any:
    """Start a probe service with settings of the test's choice."""

    @asynccontextmanager
    async def started(
        identities: Identities | None = None, *, dev_mode: bool = True, clock: Clock | None = None
    ) -> AsyncIterator[Probe]:
        servicer, identities = ProbeServicer(), identities or Identities()
        service = probe_service(servicer)
        more = {"identities": identities, "dev_mode": dev_mode, "clock": clock}
        async with running(service, request.param, **more) as channel:
            yield Probe(servicer, channel, identities, request.param, clock or SystemClock())

    return started


@pytest.fixture
async def probe(start: Any) -> AsyncIterator[Probe]:
    """A probe service in dev mode."""
    async with start() as started:
        yield started


@dataclass
class Probes:
    """The parts of a probe that is not running yet."""

    servicer: ProbeServicer
    service: Service
    stub: Any = ProbeStub
    ask: Any = Probe.ask


@pytest.fixture
async def probes() -> Probes:
    """A probe service for tests that run servers themselves."""
    servicer = ProbeServicer()
    return Probes(servicer, probe_service(servicer))
