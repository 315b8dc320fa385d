"""The life of one service's process: settings, logs, channels to peers, boundary, serving."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import grpc.aio
import uvloop
from pydantic import ValidationError
from pydantic_settings import SettingsError

from letta_common.app_error import AppError
from letta_common.clock import SystemClock
from letta_common.process.faults import MigrationFailed
from letta_common.process.settings import Settings, explained
from letta_local_channel import LocalChannel, LocalServer
from letta_rpc.auth_client import AuthClient
from letta_rpc.boundary import Boundary
from letta_rpc.client import PeerChannel, connect
from letta_rpc.server import serve
from letta_rpc.service import Deps, Service
from letta_rpc.startup import logs
from letta_rpc.startup.setting_names import warn_of_unknown
from letta_rpc.verdicts import SignatureVerifier

S = TypeVar("S", bound=Settings)


def run(settings: type[S], build: Callable[[S, Deps], Awaitable[Service]], peers: Sequence[str] = ()) -> None:
    """Read the settings, build the service and serve it over the network until SIGTERM."""
    with failures_told():
        chosen = begin(settings)
        uvloop.run(serve_one(chosen, build, peers))
    leave()


def begin(settings: type[S], **arguments: Any) -> S:
    """Read the settings of a process, begin its log and say there which names are no settings."""
    chosen = settings(**arguments)
    logs.configure(chosen)
    warn_of_unknown(chosen)
    return chosen


@contextmanager
def failures_told(other: type[Exception] = OSError) -> Iterator[None]:
    """End the process with one sentence for what an operator can mend: settings, files, addresses, the database."""
    try:
        yield
    except (ValidationError, SettingsError) as error:
        sys.exit(f"error: {explained(error)}")
    except (AppError, MigrationFailed, OSError, other) as error:
        sys.exit(f"error: {error}")


@contextmanager
def starting() -> Iterator[None]:
    """Collect no garbage while a process starts, nor ever among what it loaded: a sixth of a start."""
    gc.disable()
    try:
        yield
    finally:
        # What is loaded by now lives as long as the process; frozen, later collections do not walk it.
        gc.freeze()
        gc.enable()


def leave() -> NoReturn:
    """End the process. Everything is closed by now; taking the interpreter apart would take another half second."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # It runs no exit handlers and flushes nothing, hence the three flushes above.
    os._exit(0)


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
