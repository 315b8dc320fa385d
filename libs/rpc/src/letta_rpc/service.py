"""What a service gets from outside and what it hands to the process that serves it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from letta_common.clock import Clock, SystemClock


async def nothing() -> None:
    """Do nothing: the start or close of a service without background work."""


Servicer = tuple[Callable[[Any, Any], None], object]
"""The generated function that registers a servicer, and the servicer."""


def no_streams() -> None:
    """Do nothing: the drain of a service whose streams have an end."""


@dataclass(frozen=True, slots=True)
class Deps:
    """What a service gets from outside: channels to the peers it may call, by name, and the clock."""

    channels: Mapping[str, grpc.aio.Channel] = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True, slots=True)
class Service:
    """A built service: pairs of generated `add_XServicer_to_server` and servicer, and its background work."""

    name: str
    servicers: tuple[Servicer, ...]
    start: Callable[[], Awaitable[None]] = nothing
    close: Callable[[], Awaitable[None]] = nothing
    alive: Callable[[], Awaitable[None]] = nothing
    """Asks what it cannot serve without, its database, for a sign of life. Raises AppError."""
    drain: Callable[[], None] = no_streams
    """Ends streams that have no end of their own, as the process is about to stop; it may be called again."""

    def register(self, server: object) -> None:
        """Add the servicers to a grpc.aio server or to a LocalServer."""
        for add, servicer in self.servicers:
            add(servicer, server)
