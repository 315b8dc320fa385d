"""The gateway before a small service, over the network and within the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest

from letta_gateway.http_server import HttpServer
from letta_gateway.settings import GatewaySettings
from letta_gateway.wiring import Gateway, build
from letta_local_channel import LocalChannel, LocalServer
from letta_rpc.client import bare_channel
from letta_rpc.service import Deps
from tests.unit.transcode.toy import SERVICE, Toy, handlers, offer_reflection, toy_catalog, toy_server


@dataclass(frozen=True, slots=True)
class Front:
    """A running gateway and a client of it."""

    gateway: Gateway
    client: httpx.AsyncClient
    port: int


@asynccontextmanager
async def front(channels: Mapping[str, grpc.aio.Channel], **overrides: Any) -> AsyncIterator[Front]:
    """Run a gateway on a port of its own."""
    settings = gateway_settings(peers=tuple(channels), **overrides)
    gateway = await build(settings, Deps(dict(channels)))
    server = HttpServer(gateway.app, settings)
    await gateway.start()
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
            yield Front(gateway, client, server.port)
    finally:
        await server.stop()
        await gateway.close()


def gateway_settings(**overrides: Any) -> GatewaySettings:
    values: dict[str, Any] = {"bind": "127.0.0.1:0", "dev_mode": True, "drain_seconds": 1.0, "refresh_seconds": 0.2}
    return GatewaySettings(**{**values, **overrides})


def local_channel(toy: Toy) -> LocalChannel:
    """Return a channel to a servicer in this process."""
    server = LocalServer([])
    server.add_registered_method_handlers(SERVICE, handlers(toy, toy.catalog, SERVICE))
    offer_reflection(server, [SERVICE], toy_catalog().pool, "both")
    return LocalChannel(server)


@pytest.fixture(scope="module")
def one_toy() -> Toy:
    return Toy()


@pytest.fixture
def toy(one_toy: Toy) -> Toy:
    """Give the service of the module, which remembers nothing of earlier tests."""
    one_toy.forget()
    return one_toy


@pytest.fixture(scope="module", params=["network", "local"])
async def served(request: pytest.FixtureRequest, one_toy: Toy) -> AsyncIterator[Front]:
    """A gateway that has seen its one service; a module's tests share it, since a start takes longer than they do."""
    async with AsyncExitStack() as stack:
        if request.param == "local":
            channel: grpc.aio.Channel = local_channel(one_toy)
        else:
            port = await stack.enter_async_context(toy_server(one_toy))
            channel = bare_channel(f"127.0.0.1:{port}", gateway_settings())
        stack.push_async_callback(channel.close)
        found = await stack.enter_async_context(front({"toy": channel}))
        await found.gateway.ready()
        yield found


@pytest.fixture
def client(served: Front) -> httpx.AsyncClient:
    return served.client
