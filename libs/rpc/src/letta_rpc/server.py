"""Serving: one gRPC server for one or several services, with health, reflection and a graceful end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf import descriptor_pool
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import _async as reflection_aio
from grpc_reflection.v1alpha import reflection_pb2_grpc
from prometheus_client import start_http_server

from letta_common.process.settings import Settings
from letta_local_channel import LocalServer
from letta_rpc.boundary import Boundary
from letta_rpc.client import shared_options
from letta_rpc.health import Health, served_names
from letta_rpc.service import Service
from letta_rpc.startup.lifetime import termination

NOTICE_SECONDS = 0.5  # between NOT_SERVING and refusing calls, so that clients turn to other replicas
_REFUSED = 100  # streams of a connection, beyond those served, that are refused at once instead of waiting
_REFLECTION = "grpc.reflection.v1.ServerReflection"
_log = structlog.get_logger("letta.server")


class Server:
    """Serves built services over the network."""

    def __init__(
        self, services: Sequence[Service], settings: Settings, boundary: Boundary, health: Health | None = None
    ) -> None:
        self._services = services
        self._settings = settings
        self._server = grpc.aio.server(interceptors=[boundary], options=_options(settings))
        self._health = health or Health(services, settings.health_seconds)
        register_all(services, _ByName(self._server), self._health.servicer)
        methods = LocalServer()
        for service in services:
            service.register(methods)
        boundary.warm(list(methods.methods))
        self.watchers = Watchers()
        self.port = 0

    async def start(self) -> None:
        """Listen, start the services' background work, and report healthy."""
        self.port = _listen(self._server, self._settings.bind, self._settings)
        for service in self._services:
            await service.start()
        await self._server.start()
        await self._health.start()
        await self.watchers.start(self._settings)
        _log.info("serving", services=[service.name for service in self._services], port=self.port)

    async def stop(self, *, notice: float = NOTICE_SECONDS) -> None:
        """Report unhealthy, wait for clients to notice, end endless streams, finish what is in flight, close."""
        await self._health.stop()
        await asyncio.sleep(notice)
        for service in self._services:
            service.drain()
        await self._server.stop(self._settings.drain_seconds)
        await self.watchers.stop()
        for service in reversed(self._services):
            await service.close()


class _ByName:
    """A server whose methods are found by their names alone.

    For each method that is registered besides, the loop of grpc.aio waits with a task of its own, anew with every call:
    with those of all services that took a third of what a call takes.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Serve what these handlers know."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Do nothing: `add_generic_rpc_handlers` was called with the same ones."""


class Watchers:
    """What looks into a process from the side: Prometheus and channelz, each on a port of its own, off by default."""

    def __init__(self) -> None:
        self._channelz: grpc.aio.Server | None = None
        self.channelz_port = 0

    async def start(self, settings: Settings) -> None:
        """Listen where the settings say so. Raises OSError when an address is taken."""
        if settings.metrics_bind:
            host, _, port = settings.metrics_bind.rpartition(":")
            start_http_server(int(port), host)
        if settings.channelz_bind:
            self._channelz = grpc.aio.server()
            channelz.add_channelz_servicer(self._channelz)
            self.channelz_port = _listen(self._channelz, settings.channelz_bind)
            await self._channelz.start()

    async def stop(self) -> None:
        """Stop listening."""
        if self._channelz is not None:
            await self._channelz.stop(None)


async def serve(services: Sequence[Service], settings: Settings, boundary: Boundary) -> None:
    """Serve until SIGTERM or SIGINT, then end gracefully."""
    end = termination()
    server = Server(services, settings, boundary)
    await server.start()
    await end.wait()
    await server.stop()


def register_all(services: Sequence[Service], server: Any, health: Any) -> None:
    """Add services, health and reflection (v1 and v1alpha) to a grpc.aio server or a LocalServer."""
    for service in services:
        service.register(server)
    served = sorted(name for service in services for name in served_names(service))
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    described = [*served, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name]
    reflection = reflection_aio.ReflectionServicer(described, _PoolThatKnowsMethods())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection, server)
    # grpc_reflection has v1alpha alone. v1 differs in the name of the package, so the same handlers serve it.
    catch = LocalServer()
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection, catch)
    v1 = {path.rpartition("/")[2]: handler for path, handler in catch.methods.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_REFLECTION, v1),))
    server.add_registered_method_handlers(_REFLECTION, v1)


class _PoolThatKnowsMethods:
    """The pool of descriptors; asked for the file of a method, it answers with the file of its service."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        """Find the file of anything that has a full name. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file


def _options(settings: Settings) -> list[tuple[str, Any]]:
    return [
        *shared_options(settings),
        # gRPC's default is five minutes, and it closes connections of clients that ping more often, as ours do.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_age_ms", 300_000),  # so that clients find new replicas; without a grace streams survive
        # By default Linux would let any second process listen on the same port and give it half of the connections.
        ("grpc.so_reuseport", int(settings.share_ports)),
        ("grpc.server_handshake_timeout_ms", round(settings.handshake_seconds * 1000)),
        ("grpc.http2.settings_timeout", round(settings.handshake_seconds * 1000)),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", settings.max_calls + _REFUSED if settings.max_calls else 2**31 - 1),
    ]


def _listen(server: grpc.aio.Server, bind: str, settings: Settings | None = None) -> int:
    try:
        return _add_port(server, bind, settings)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {bind}: the address is taken, or not one of this machine") from error


def _add_port(server: grpc.aio.Server, bind: str, settings: Settings | None) -> int:
    if settings is None or settings.tls_certificate is None or settings.tls_key is None:
        return server.add_insecure_port(bind)
    credentials = grpc.ssl_server_credentials(
        [(settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())],
        settings.tls_ca.read_bytes() if settings.tls_ca else None,
        require_client_auth=settings.tls_ca is not None,
    )
    return server.add_secure_port(bind, credentials)
