"""The fork servers of tenants: one for each organization, set of packages and list of hosts, warm while it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from letta_common.process.periodic import Periodic
from letta_sandbox.calls import Env
from letta_sandbox.destinations import Destinations
from letta_sandbox.local.servers import ForkServer, ServerFailed


@dataclass(frozen=True, slots=True)
class Needs:
    """What a server is for. Without packages and network it has nothing of a tenant and serves all."""

    env: Env
    destinations: Destinations = field(default_factory=Destinations)

    @property
    def organization_id(self) -> str:
        """The tenant that alone uses the server; empty when all may."""
        return self.env.organization_id if self.env.path or self.destinations else ""

    @property
    def key(self) -> tuple[str, str, Destinations]:
        """What tells it from other servers."""
        return (self.organization_id, self.env.key, self.destinations)


@dataclass(slots=True)
class _KeptFleet:
    place: int
    server: ForkServer
    used_at: float


Start = Callable[[Needs, int], Awaitable[ForkServer]]
_Key = tuple[str, str, Destinations]


class Fleet:
    """Starts a server when it is first needed; ends those unused for long, and for longest when there are too many.

    At most `most` are kept, half of them for one organization, and twice that while all of them are busy.
    """

    def __init__(self, start: Start, most: int, idle_seconds: float) -> None:
        self._start = start
        self._most = most
        self._idle_seconds = idle_seconds
        self._kept: dict[_Key, _KeptFleet] = {}
        self._lock = asyncio.Lock()
        # Looking four times within the time keeps a server at most a quarter longer than that.
        self._sweeps = Periodic("idle servers", self._sweep, idle_seconds / 4)

    async def get(self, needs: Needs) -> ForkServer:
        """Return a server that fits. Raises ServerFailed."""
        async with self._lock:
            kept = self._kept.pop(needs.key, None)
            if kept is not None and kept.server.dead:
                await kept.server.close()
                kept = None
            if kept is None:
                place = await self._make_room(needs)
                kept = _KeptFleet(place, await self._start(needs, place), 0.0)
            kept.used_at = asyncio.get_running_loop().time()
            self._kept[needs.key] = kept  # the one used last is the last one
            self._sweeps.start()
            return kept.server

    @property
    def count(self) -> int:
        """How many servers there are."""
        return len(self._kept)

    async def _make_room(self, needs: Needs) -> int:
        """End idle servers until there is room; return a free place, from 1. Raises ServerFailed when all are busy."""
        own, share = needs.organization_id, max(1, self._most // 2)
        if own:
            await self._thin(share, [key for key in self._kept if key[0] == own])
        await self._thin(self._most, list(self._kept))
        of_own = sum(key[0] == own for key in self._kept)
        if len(self._kept) >= 2 * self._most or (own and of_own >= 2 * share):
            raise ServerFailed("too many sets of packages and lists of hosts are in use at once")
        taken = {kept.place for kept in self._kept.values()}
        return next(place for place in range(1, len(taken) + 2) if place not in taken)

    async def _thin(self, most: int, keys: list[_Key]) -> None:
        """End idle servers, those unused for longest first, until there is room below a number."""
        count = len(keys)
        for key in keys:
            if count >= most and not self._kept[key].server.busy:
                count -= 1
                await self._kept.pop(key).server.close()

    async def _sweep(self) -> None:
        async with self._lock:
            limit = asyncio.get_running_loop().time() - self._idle_seconds
            for key, kept in list(self._kept.items()):
                if kept.used_at < limit and not kept.server.busy:
                    await self._kept.pop(key).server.close()

    async def close(self) -> None:
        """End all servers."""
        await self._sweeps.finish()  # a server that is being ended is in no list any more
        async with self._lock:
            for kept in self._kept.values():
                await kept.server.close()
            self._kept.clear()
