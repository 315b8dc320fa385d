"""The process of one service: its settings, channels to peers, boundary, serving."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import grpc.aio
import uvloop

from letta_common.clock import SystemClock
from letta_common.process.settings import Settings
from letta_local_channel import LocalChannel, LocalServer
from letta_rpc.auth_client import AuthClient
from letta_rpc.boundary import Boundary
from letta_rpc.client import PeerChannel, connect
from letta_rpc.server import serve
from letta_rpc.service import Deps, Service
from letta_rpc.startup.lifetime import begin, failures_told, leave
from letta_rpc.verdicts import SignatureVerifier

S = TypeVar("S", bound=Settings)


def run(settings: type[S], build: Callable[[S, Deps], Awaitable[Service]], peers: Sequence[str] = ()) -> None:
    """Read the settings, build the service and serve it over the network until SIGTERM."""
    with failures_told():
        chosen = begin(settings)
        uvloop.run(serve_one(chosen, build, peers))
    leave()


async def serve_one(settings: S, build: Callable[[S, Deps], Awaitable[Service]], peers: Sequence[str] = ()) -> None:
    """Build a service with channels to its peers and serve it until SIGTERM."""
    name, own = settings.service, LocalServer()
    channels: dict[str, grpc.aio.Channel] = {
        peer: connect(settings.address_of(peer), settings, caller=name) for peer in {*peers, "auth"} - {name}
    }
    if name == "auth":  # its boundary asks it too, and needs no network for that
        channels["auth"] = PeerChannel(LocalChannel(own), name, settings.secret())
    boundary = boundary_for(settings, channels["auth"])
    service = await build(settings, Deps({peer: channels[peer] for peer in peers}, SystemClock()))
    own.intercept(boundary)
    service.register(own)
    try:
        await serve([service], settings, boundary)
    finally:
        for channel in channels.values():
            await channel.close()


def boundary_for(settings: Settings, auth: grpc.aio.Channel) -> Boundary:
    """Return the boundary of a process that asks the auth service on this channel."""
    clock = SystemClock()
    client = AuthClient(auth, clock)
    verifier = SignatureVerifier(client, settings.audience, clock)
    return Boundary(
        verifier,
        client,
        secret=settings.secret(),
        clock=clock,
        dev_mode=settings.dev_mode,
        most=settings.max_calls,
        most_of_one=settings.max_calls_of_organization,
    )
