"""Every service in one process: calls between them go through local channels, calls from outside over the network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import letta_agent.wiring
import letta_auth.wiring
import letta_gateway.wiring
import letta_llm_gateway.wiring
import letta_memory.wiring
import letta_tools.wiring
from letta_agent.settings import AgentSettings
from letta_auth.settings import AuthSettings
from letta_cli.servers.databases import database
from letta_cli.servers.schemas import upgrade_all
from letta_common.clock import SystemClock
from letta_common.process.settings import Settings
from letta_gateway.http_server import HttpServer
from letta_gateway.settings import GatewaySettings
from letta_llm_gateway.settings import LLMGatewaySettings
from letta_local_channel import LocalChannel, LocalServer
from letta_memory.settings import MemorySettings
from letta_rpc.client import PeerChannel
from letta_rpc.health import Health
from letta_rpc.process import boundary_for
from letta_rpc.server import Server, register_all
from letta_rpc.service import Deps, Service
from letta_rpc.startup.lifetime import termination
from letta_tools.settings import ToolsSettings


@dataclass(frozen=True, slots=True)
class StackService:
    """One service: its settings, how it is built, and the peers it may call."""

    settings: type[Settings]
    build: Callable[[Any, Deps], Awaitable[Service]]
    peers: tuple[str, ...] = ()


ROOMS: Mapping[str, StackService] = {
    "auth": StackService(AuthSettings, letta_auth.wiring.build),
    "tools": StackService(ToolsSettings, letta_tools.wiring.build),
    "llm_gateway": StackService(LLMGatewaySettings, letta_llm_gateway.wiring.build),
    "memory": StackService(MemorySettings, letta_memory.wiring.build, ("llm_gateway",)),
    "agent": StackService(AgentSettings, letta_agent.wiring.build, ("auth", "memory", "tools", "llm_gateway")),
}


class Stack:
    """The services, one gRPC server for all of them, and the HTTP gateway, in one event loop."""

    def __init__(self, arguments: Mapping[str, Any], *, http_bind: str) -> None:
        self._arguments = arguments
        self._settings = Settings(**arguments)
        self._gateway_settings = GatewaySettings(**{**arguments, "bind": http_bind, "peers": ("local",)})
        self._local = LocalServer(max_message=self._settings.max_message_bytes)
        self._boundary = boundary_for(self._settings, self.channel("boundary"))
        self._local.intercept(self._boundary)
        self._services: list[Service] = []
        self._ends = AsyncExitStack()

    def channel(self, caller: str) -> PeerChannel:
        """Return a channel to every service that speaks as the service `caller`."""
        return PeerChannel(LocalChannel(self._local), caller, self._settings.secret())

    async def start(self) -> None:
        """Build every service, listen, and answer over gRPC and HTTP. Raises OSError when an address is taken."""
        self._ends.push_async_callback(self._local.stop)
        for name, room in ROOMS.items():
            deps = Deps(dict.fromkeys(room.peers, self.channel(name)), SystemClock())
            self._services.append(await room.build(room.settings(**self._arguments), deps))
        health = Health(self._services, self._settings.health_seconds)
        register_all(self._services, self._local, health.servicer)
        server = Server(self._services, self._settings, self._boundary, health)
        self._ends.push_async_callback(server.stop, notice=0)
        await server.start()
        gateway = await letta_gateway.wiring.build(self._gateway_settings, Deps({"local": LocalChannel(self._local)}))
        self._ends.push_async_callback(gateway.close)
        http = HttpServer(gateway.app, self._gateway_settings)
        await gateway.start()
        await gateway.ready()
        await http.start()
        self._ends.push_async_callback(http.stop)

    async def stop(self) -> None:
        """Finish what is in flight, then close, in the opposite order of the start."""
        # Before HTTP stops, which waits for the answers that are such streams.
        for service in self._services:
            service.drain()
        await self._ends.aclose()


async def serve_all(
    arguments: Mapping[str, Any],
    http_bind: str,
    started: Callable[[str | None], Awaitable[None]],
    progress: Callable[[str], None],
) -> None:
    """Run the database and everything on it until SIGTERM or SIGINT; `progress` gets a line for each stage."""
    async with database(Settings(**arguments), upgrade_all, progress) as url:
        progress("starting the services ...")
        await serve({**arguments, "database_url": url}, http_bind, started)


async def serve(arguments: Mapping[str, Any], http_bind: str, started: Callable[[str | None], Awaitable[None]]) -> None:
    """Run every service until SIGTERM or SIGINT, on a database that is there.

    `started` is awaited once it answers, with the administrator's key when this start made the first one.
    """
    stack, end = Stack(arguments, http_bind=http_bind), termination()
    try:
        await stack.start()
        settings = AuthSettings(**arguments)
        await started(None if settings.dev_mode else await letta_auth.wiring.bootstrap_admin_key(settings))
        await end.wait()
    finally:
        await stack.stop()
