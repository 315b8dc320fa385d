"""Runs the gateway: `python -m letta_gateway`."""

from __future__ import annotations

import uvloop
from prometheus_client import start_http_server

from letta_common import logs
from letta_common.server import termination
from letta_common.service import Deps
from letta_gateway.channels import connect
from letta_gateway.http_server import HttpServer
from letta_gateway.settings import GatewaySettings
from letta_gateway.wiring import build


async def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT, then end gracefully."""
    end = termination()
    channels = {peer: connect(settings.address_of(peer), settings) for peer in settings.peers}
    gateway = await build(settings, Deps(channels))
    server = HttpServer(gateway.app, settings)
    await gateway.start()
    await server.start()
    if settings.metrics_bind:
        host, _, port = settings.metrics_bind.rpartition(":")
        start_http_server(int(port), host)
    await end.wait()
    await server.stop()
    await gateway.close()
    for channel in channels.values():
        await channel.close()


def main() -> None:
    """Serve until SIGTERM."""
    settings = GatewaySettings()
    logs.configure(settings)
    uvloop.run(serve(settings))


if __name__ == "__main__":
    main()
