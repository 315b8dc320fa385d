"""Work that is done again and again beside the calls of a process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from enum import Enum

import structlog

from letta_common.errors import AppError

_log = structlog.get_logger("letta.background")


class Next(Enum):
    """When the next turn comes."""

    AFTER_A_PAUSE = 0
    AT_ONCE = 1


class Periodic:
    """Does one piece of work in turns until it is stopped. A turn that fails is logged, and the next one comes.

    Work that returns `Next.AT_ONCE` has more to do.
    """

    def __init__(
        self, name: str, work: Callable[[], Awaitable[object]], seconds: float, *, at_once: bool = False
    ) -> None:
        self._name, self._work, self._seconds, self._at_once = name, work, seconds, at_once
        self._wake = asyncio.Event()
        self._ending = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, when it has not begun; the first turn comes after a pause, or at once if that was asked for."""
        if self._task is None:
            self._task = asyncio.create_task(self._go_on(), name=self._name)

    def wake(self) -> None:
        """Have the next turn come at once."""
        self._wake.set()

    async def stop(self) -> None:
        """Give up the turn in hand, and return when that is done."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def finish(self) -> None:
        """Let the turn in hand come to its end, and begin no other."""
        self._ending = True
        self.wake()
        if self._task is not None:
            await self._task

    async def _go_on(self) -> None:
        if not self._at_once:
            await self._pause()
        while not self._ending:
            if await self._turn() is Next.AT_ONCE:
                await asyncio.sleep(0)
            else:
                await self._pause()

    async def _turn(self) -> object:
        try:
            return await self._work()
        except AppError as error:
            _log.warning("background work waits", work=self._name, reason=error.reason, message=error.message)
        except Exception:
            _log.exception("background work failed", work=self._name)
        return Next.AFTER_A_PAUSE

    async def _pause(self) -> None:
        with suppress(TimeoutError):  # replicas that began together must not keep asking the database together
            await asyncio.wait_for(self._wake.wait(), self._seconds * random.uniform(0.9, 1.1))  # noqa: S311
        self._wake.clear()


async def stop_all(loops: Iterable[Periodic]) -> None:
    """Stop several, and return when each has given up its turn."""
    await asyncio.gather(*(loop.stop() for loop in loops))
