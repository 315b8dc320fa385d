"""Keeps the routes of several servers up to date."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import grpc

from letta_transcode.descriptors.catalog import Catalog, CatalogError, fingerprint
from letta_transcode.descriptors.reflection import Descriptors, ReflectionError, read
from letta_transcode.routing.routes import Absent, PeerRoutes, Routes, compile_peer, merge

_log = logging.getLogger(__name__)

Source = Callable[[], Awaitable[Descriptors]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How often servers are asked, in seconds."""

    refresh: float = 15.0
    first_retry: float = 0.1
    last_retry: float = 2.0
    timeout: float = 10.0


class Peers:
    """The servers behind the gateway. They may start in any order; the last good routes of each stay in use.

    A server is asked for its descriptors until it answers, again whenever its connection comes back, and every
    `Pace.refresh` seconds.
    """

    def __init__(
        self, channels: Mapping[str, grpc.aio.Channel], pace: Pace | None = None, absent: Absent | None = None
    ) -> None:
        self._channels = dict(channels)
        self._absent = absent
        self._pace = pace or Pace()
        self._seen: dict[str, tuple[str, PeerRoutes]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._routes = Routes()

    @property
    def routes(self) -> Routes:
        """The routes in use."""
        return self._routes

    @property
    def unseen(self) -> tuple[str, ...]:
        """Names of the servers that have not described themselves yet."""
        return tuple(name for name in self._channels if name not in self._seen)

    def channel(self, peer: str) -> grpc.aio.Channel:
        """Return the channel to a server."""
        return self._channels[peer]

    async def start(self) -> None:
        """Begin to watch the servers. Returns at once."""
        self._tasks = [asyncio.create_task(self._watch(name)) for name in self._channels]

    async def close(self) -> None:
        """Stop watching. The channels stay open: they belong to the caller."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def refresh(self, peer: str) -> bool:
        """Ask one server now; say whether its routes changed. Raises what the question raises."""
        found = await read(self._channels[peer], timeout=self._pace.timeout)
        # In a thread, as descriptors of a whole API take long enough to hold up the requests in flight.
        mark = await asyncio.to_thread(fingerprint, found.files, found.services)
        known = self._seen.get(peer)
        if known is not None and known[0] == mark:
            return False
        made = await asyncio.to_thread(_compile, peer, found)
        self._seen[peer] = (mark, made)
        # In the order of the channels, so that of two servers with one path the same one wins at every refresh.
        seen = (self._seen[name][1] for name in self._channels if name in self._seen)
        self._routes = merge(seen, self._absent)
        for text in made.problems:
            _log.warning("cannot map: %s", text)
        # Wakes those who wait now; who comes later waits for the next change.
        self._changed.set()
        self._changed = asyncio.Event()
        return True

    async def ready(self) -> None:
        """Wait until every server has described itself."""
        while self.unseen:
            await self._changed.wait()

    async def _watch(self, peer: str) -> None:
        delay = self._pace.first_retry
        while True:
            try:
                await self.refresh(peer)
            except (grpc.RpcError, ReflectionError, CatalogError) as error:
                _log.info("%s does not describe itself yet: %s", peer, _short(error))
                await asyncio.sleep(delay)
                delay = min(delay * 2, self._pace.last_retry)
            except grpc.aio.UsageError:
                _log.info("the channel to %s is closed", peer)
                return
            # Whatever the descriptors of one server do here, its last good routes and the other servers stay.
            except Exception:
                _log.exception("the descriptors of %s cannot be used", peer)
                await asyncio.sleep(self._pace.last_retry)
            else:
                # A server that restarts later is asked again as quickly as at first.
                delay = self._pace.first_retry
                await self._rest(self._channels[peer])

    async def _rest(self, channel: grpc.aio.Channel) -> None:
        """Wait for the next question: until the connection came back, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.refresh):
                state = channel.get_state()
                while state is grpc.ChannelConnectivity.READY:
                    await channel.wait_for_state_change(state)
                    state = channel.get_state()
                while state not in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.SHUTDOWN):
                    # An idle channel stays idle for ever unless somebody asks it to connect.
                    channel.get_state(try_to_connect=True)
                    await channel.wait_for_state_change(state)
                    state = channel.get_state()


def _compile(peer: str, found: Descriptors) -> PeerRoutes:
    return compile_peer(peer, Catalog(found.files, found.services))


def _short(error: Exception) -> str:
    return str(error.code()) if isinstance(error, grpc.aio.AioRpcError) else str(error)
