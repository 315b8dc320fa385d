"""The fork servers of installed packages: one for each set, the ones used last kept warm."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from letta_tools.domain.execution import Env
from letta_tools.providers.local.servers import ForkServer

Start = Callable[[Env, int], Awaitable[ForkServer]]


class Fleet:
    """Starts a fork server for an environment when it is first used, and ends those unused for longest."""

    def __init__(self, start: Start, most: int) -> None:
        self._start = start
        self._most = most
        self._servers: dict[str, tuple[int, ForkServer]] = {}
        self._lock = asyncio.Lock()

    async def get(self, env: Env) -> ForkServer:
        """Return the environment's server. Raises ServerFailed."""
        async with self._lock:
            place, server = self._servers.pop(env.key, (0, None))
            if server is not None and server.dead:
                await server.close()
                server = None
            if server is None:
                place = await self._make_room()
                server = await self._start(env, place)
            self._servers[env.key] = (place, server)
            return server

    async def _make_room(self) -> int:
        """End idle servers until there is room; return a free place, from 1."""
        for key, (_, server) in list(self._servers.items()):
            if len(self._servers) >= self._most and not server.busy:
                del self._servers[key]
                await server.close()
        taken = {place for place, _ in self._servers.values()}
        return next(place for place in range(1, len(taken) + 2) if place not in taken)

    async def close(self) -> None:
        """End all servers."""
        async with self._lock:
            for _, server in self._servers.values():
                await server.close()
            self._servers.clear()
