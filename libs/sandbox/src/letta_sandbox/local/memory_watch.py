"""Keeps what the calls of an organization take together within its share of memory: some stand still meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter

from letta_sandbox.local.servers import ForkServer

_PAUSE_SECONDS = 0.1
_log = structlog.get_logger("letta.tools.memory")
_paused = Counter("letta_tools_calls_paused", "Calls that stood still for the memory of their organization.")


@dataclass(frozen=True, slots=True)
class MemoryShares:
    """How many bytes all calls may take together, and those of one organization. 0: any number."""

    all: int = 0
    organization: int = 0


@dataclass(slots=True, eq=False)
class Watched:
    """One call: whose it is, how much it may take and takes, where it runs."""

    organization_id: str
    limit: int
    weight: int = 0
    paused: bool = False
    place: tuple[ForkServer, int] | None = None

    def begun(self, server: ForkServer, number: int) -> None:
        """Note where the call runs."""
        self.place = (server, number)

    @property
    def growth(self) -> int:
        """How much more it may take."""
        return max(0, self.limit - self.weight)


@dataclass(slots=True)
class MemoryWatch:
    """Weighs calls while they might take more than their share, and lets those stand still that came last.

    Until half of a share is taken all calls run. Then the oldest go on, as many as can take all that they may, and one
    in any case: it ends, and makes room. So calls of an organization that takes little are never held up, those that
    take much come one after the other, and none fails because of others.
    """

    shares: MemoryShares
    _calls: list[Watched] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def over(self, organization_id: str, limit: int) -> Iterator[Watched]:
        """Watch over a call while it runs."""
        call = Watched(organization_id, limit)
        self._calls.append(call)
        if self._task is None and self._may_exceed():
            # Weighing costs reading /proc, so nothing is watched while all limits together fit into the share.
            self._task = asyncio.create_task(self._watch())
        try:
            yield call
        finally:
            self._calls.remove(call)

    async def close(self) -> None:
        """Watch no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        try:
            while self._may_exceed():
                await asyncio.sleep(_PAUSE_SECONDS)
                await self._weigh()
                self._settle()
        finally:
            for call in self._calls:
                _set(call, paused=False)
            self._task = None

    def _may_exceed(self) -> bool:
        """Whether calls could take more than a share if each took what it may."""
        together = sum(call.limit for call in self._calls)
        if self.shares.all and together > self.shares.all:
            return True
        most = self.shares.organization
        return bool(most) and any(sum(call.limit for call in own) > most for own in self._by_organization().values())

    async def _weigh(self) -> None:
        by_server: defaultdict[ForkServer, dict[int, Watched]] = defaultdict(dict)
        for call in self._calls:
            if call.place is not None:
                by_server[call.place[0]][call.place[1]] = call
        answers = await asyncio.gather(*(server.weigh(list(calls)) for server, calls in by_server.items()))
        for calls, weights in zip(by_server.values(), answers, strict=True):
            for number, call in calls.items():
                call.weight = weights.get(number, 0)

    def _settle(self) -> None:
        """Let calls stand still or go on."""
        by_organization = self._by_organization().values()
        turns = [_fitting(calls, self.shares.organization, sure=1) for calls in by_organization]
        in_turn = [own[at] for at in range(max(map(len, turns), default=0)) for own in turns if at < len(own)]
        going = set(map(id, _fitting(in_turn, self.shares.all, sure=len(turns), taken=self._taken())))
        for call in self._calls:
            _set(call, paused=id(call) not in going)

    def _taken(self) -> int:
        return sum(call.weight for call in self._calls)

    def _by_organization(self) -> dict[str, list[Watched]]:
        found: defaultdict[str, list[Watched]] = defaultdict(list)
        for call in self._calls:
            found[call.organization_id].append(call)
        return found


def _fitting(calls: Sequence[Watched], share: int, *, sure: int, taken: int | None = None) -> list[Watched]:
    """Return the calls that may go on, of those that come first the `sure` ones in any case."""
    taken = sum(call.weight for call in calls) if taken is None else taken
    # The other half is room for what calls take before they are weighed again.
    if not share or taken <= share // 2:
        return list(calls)
    left, going = share - taken, []
    for at, call in enumerate(calls):
        if at < sure or call.growth <= left:
            going.append(call)
            left -= call.growth
    return going


def _set(call: Watched, *, paused: bool) -> None:
    """Let a call stand still or go on. A call that had no process when it was paused is paused again."""
    if call.place is None or not (call.paused or paused):
        return
    server, number = call.place
    if paused and not call.paused:
        _paused.inc()
        _log.info("a call stands still for memory", organization_id=call.organization_id, bytes=call.weight)
    call.paused = paused
    (server.pause if paused else server.resume)(number)
