"""Runs the gateway: `python -m letta_gateway`."""

from __future__ import annotations

import uvloop

from letta_gateway.http_server import HttpServer
from letta_gateway.settings import GatewaySettings
from letta_gateway.wiring import build
from letta_rpc.client import bare_channel
from letta_rpc.server import Watchers
from letta_rpc.service import Deps
from letta_rpc.startup.lifetime import begin, failures_told, termination


async def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT, then end gracefully."""
    end = termination()
    channels = {peer: bare_channel(settings.address_of(peer), settings) for peer in settings.peers}
    gateway = await build(settings, Deps(channels))
    server = HttpServer(gateway.app, settings)
    await gateway.start()
    await server.start()
    watchers = Watchers()
    await watchers.start(settings)
    await end.wait()
    await watchers.stop()
    await server.stop()
    await gateway.close()
    for channel in channels.values():
        await channel.close()


def main() -> None:
    """Serve until SIGTERM."""
    with failures_told():
        uvloop.run(serve(begin(GatewaySettings)))


if __name__ == "__main__":
    main()
