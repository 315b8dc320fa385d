"""Machines for calls: one of its own for each, or one that served the same tenant with the same packages before."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import structlog

from letta_common.fair_slots import FairSlots, Shares
from letta_common.process.periodic import Periodic
from letta_sandbox.calls import Limits
from letta_sandbox.remote.machines import (
    ANSWER_SECONDS,
    Job,
    Machine,
    MachineFailed,
    Machines,
    MachinesBusy,
    Shape,
)
from letta_sandbox.remote.owners import MachineOwner

_log = structlog.get_logger("letta.tools.machines")
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How organizations share machines and how long each exists. Without idle seconds each call gets one of its own.

    A vendor that is busy is asked again after each of `busy_waits`.
    """

    shares: Shares = field(default_factory=lambda: Shares(slots=64, leave_room=True))
    idle_seconds: float = 0.0
    lifetime_seconds: float = 1800.0
    sweep_seconds: float = 60.0
    busy_waits: tuple[float, ...] = (0.2, 0.6, 1.8)


@dataclass(frozen=True, slots=True)
class Use:
    """Who may use a machine made of what, with which packages, within which limits. Nothing else is ever run on it."""

    organization_id: str
    packages: str
    package_bytes: int
    limits: Limits
    template: str = ""

    def key(self) -> Use:
        """Return what must be equal for a machine to be used again; time is watched for each call."""
        return replace(self, limits=replace(self.limits, timeout_seconds=0.0, output_bytes=0, result_bytes=0))


@dataclass(slots=True)
class _KeptMachine:
    """A machine, the time at which it ends by itself, and what ends it when nobody needs it."""

    machine: Machine
    until: float
    timer: asyncio.TimerHandle | None = None


class Lease:
    """The right to run one job. Unless `keep` is set, the machine is ended afterwards."""

    def __init__(self, pool: MachinePool, use: Use) -> None:
        self.keep = False
        self.kept: _KeptMachine | None = None
        self._pool = pool
        self._use = use

    async def run(self, make: Callable[[bool], Job]) -> bytes:
        """Run a job, made for a machine that is fresh or not. Raises what Machine.run does, and MachinesBusy."""
        self.kept = self._pool.take(self._use)
        if self.kept is not None:
            with contextlib.suppress(MachineFailed):  # it has ended while it was idle, and knows nothing of the job
                return await self.kept.machine.run(make(False))
            self._pool.end(self.kept.machine)
            self.kept = None
        self.kept = await self._pool.start(self._use)
        return await self.kept.machine.run(make(True))


class MachinePool:
    """Starts machines, keeps and ends them."""

    def __init__(self, machines: Machines, owner: MachineOwner, options: PoolOptions) -> None:
        self._machines = machines
        self._owner = owner
        self._options = options
        self._slots = FairSlots(options.shares, "tool calls")
        self._idle: defaultdict[Use, list[_KeptMachine]] = defaultdict(list)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sweeps = Periodic("machines left over", self.sweep, options.sweep_seconds, at_once=True)
        self._closed = False

    def begin(self) -> None:
        """End what earlier processes left, now and again."""
        self._owner.begin()
        self._sweeps.start()

    @contextlib.asynccontextmanager
    async def lease(self, use: Use) -> AsyncIterator[Lease]:
        """Have a machine for one job. When the caller is cancelled, so is the job, with its machine.

        Raises RateLimited when the organization has too many jobs.
        """
        async with self._slots.hold(use.organization_id):
            self._owner.begin()
            lease = Lease(self, use)
            try:
                yield lease
            except BaseException:
                if lease.kept is not None:
                    await asyncio.shield(self.end(lease.kept.machine))
                raise
            if lease.kept is not None:
                self._give_back(use, lease.kept, keep=lease.keep)

    def take(self, use: Use) -> _KeptMachine | None:
        """Return a machine that waits for such a use and lives long enough for it."""
        now = asyncio.get_running_loop().time()
        waiting = self._idle.get(use.key(), [])
        while waiting:
            kept = waiting.pop()
            if kept.timer is not None:
                kept.timer.cancel()
            if kept.until - now > use.limits.timeout_seconds + 2 * ANSWER_SECONDS:
                return kept
            self.end(kept.machine)
        return None

    async def start(self, use: Use) -> _KeptMachine:
        """Start a machine; one that comes too late for its caller is ended. Raises MachineFailed, MachinesBusy."""
        seconds = use.limits.timeout_seconds + 4 * ANSWER_SECONDS
        if self._options.idle_seconds:
            seconds = max(seconds, self._options.lifetime_seconds)
        shape = Shape(use.limits, use.package_bytes, math.ceil(seconds), self._owner.labels(seconds), use.template)
        for wait in self._options.busy_waits:
            with contextlib.suppress(MachinesBusy):
                return _KeptMachine(await self._started(shape), asyncio.get_running_loop().time() + seconds)
            await asyncio.sleep(wait)
        return _KeptMachine(await self._started(shape), asyncio.get_running_loop().time() + seconds)

    def end(self, machine: Machine) -> asyncio.Task[None]:
        """End a machine, also when nobody waits for it."""
        return self._spawn(self._end(machine))

    async def sweep(self) -> int:
        """End the machines that earlier processes left. Return how many there were."""
        try:
            found = await self._machines.standing()
        except MachineFailed as error:
            _log.warning("machines cannot be listed", provider=self._machines.name, error=str(error))
            return 0
        orphans = [standing.machine for standing in found if self._owner.is_orphan(standing.labels)]
        await asyncio.gather(*(self._end(machine) for machine in orphans))
        self._owner.forget_dead()
        if orphans:
            _log.info("ended machines that were left", provider=self._machines.name, machines=len(orphans))
        return len(orphans)

    async def close(self) -> None:
        """End every machine that waits, and wait for those that are ending."""
        self._closed = True
        await self._sweeps.stop()
        for waiting in self._idle.values():
            for kept in waiting:
                if kept.timer is not None:
                    kept.timer.cancel()
                self.end(kept.machine)
        self._idle.clear()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._machines.close()
        self._owner.end()

    async def _started(self, shape: Shape) -> Machine:
        starting = self._spawn(self._machines.start(shape))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(self._end_late)
            raise

    def _give_back(self, use: Use, kept: _KeptMachine, *, keep: bool) -> None:
        idle = self._options.idle_seconds
        if not keep or not idle or not use.organization_id or self._closed:
            self.end(kept.machine)
            return
        kept.timer = asyncio.get_running_loop().call_later(idle, self._end_idle, use.key(), kept)
        self._idle[use.key()].append(kept)

    def _end_idle(self, key: Use, kept: _KeptMachine) -> None:
        waiting = self._idle.get(key, [])
        if kept in waiting:
            waiting.remove(kept)
            self.end(kept.machine)
        if not waiting:
            self._idle.pop(key, None)

    async def _end(self, machine: Machine) -> None:
        try:
            await machine.end()
        except MachineFailed as error:  # it ends by itself later, or is swept
            _log.warning("a machine cannot be ended", provider=self._machines.name, error=str(error))

    def _end_late(self, starting: asyncio.Task[Machine]) -> None:
        if not starting.cancelled() and starting.exception() is None:
            self.end(starting.result())

    def _spawn(self, work: Coroutine[Any, Any, _Made]) -> asyncio.Task[_Made]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
