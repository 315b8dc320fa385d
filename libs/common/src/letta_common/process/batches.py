"""Rows that are written in batches, off the path of the calls that make them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from letta_common.errors import AppError

Row = TypeVar("Row")
_log = structlog.get_logger("letta.background")


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How rows are collected."""

    seconds: float
    """A batch is written so long after its first row, or as soon as it is full."""
    rows: int
    """Weight of one batch."""
    most: int
    """Rows that may wait; the oldest are lost first."""
    retry_seconds: float = 1.0


class BatchWriter(Generic[Row]):
    """Writes rows in their order. What the database cannot take now waits; what it never takes costs only itself."""

    def __init__(
        self,
        name: str,
        write: Callable[[list[Row]], Awaitable[None]],
        options: BatchOptions,
        *,
        lost: Callable[[Row], None] = lambda _: None,
        weight: Callable[[Row], int] = lambda _: 1,
    ) -> None:
        self._name, self._write, self._options, self._lost, self._weight = name, write, options, lost, weight
        self._rows: deque[Row] = deque()
        self._some, self._due = asyncio.Event(), asyncio.Event()
        self._hastened: asyncio.TimerHandle | None = None
        self._losing = False
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def put(self, row: Row) -> None:
        """Have a row written soon."""
        if len(self._rows) >= self._options.most:
            self._lost(self._rows.popleft())
            if not self._losing:  # once until the database takes some again
                _log.error("rows are lost: too many wait", rows_of=self._name, most=self._options.most)
            self._losing = True
        self._rows.append(row)
        self._some.set()
        if len(self._rows) >= self._options.rows:
            self._due.set()

    def hasten(self, seconds: float) -> None:
        """Have what waits written within so many seconds, though its batch may collect rows for longer."""
        if self._rows and self._hastened is None:
            self._hastened = asyncio.get_running_loop().call_later(seconds, self._due.set)

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._go_on(), name=self._name)

    async def close(self) -> None:
        """Write what is left and stop."""
        if self._task is not None:
            async with self._writing:  # the batch in hand is written to its end
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if not await self.flush():
            _log.error("rows are lost: the database is away at the end", rows_of=self._name, rows=len(self._rows))

    async def flush(self) -> bool:
        """Write what has come so far; keep it and say no when the database is away."""
        async with self._writing:
            self._some.clear()
            self._due.clear()
            if self._hastened is not None:
                self._hastened.cancel()
                self._hastened = None
            while self._rows:
                if not await self._store(self._taken()):
                    self._some.set()
                    return False
                self._losing = False
            return True

    def _taken(self) -> list[Row]:
        batch = [self._rows.popleft()]
        left = self._options.rows - self._weight(batch[0])
        while self._rows and (left := left - self._weight(self._rows[0])) >= 0:
            batch.append(self._rows.popleft())
        return batch

    async def _store(self, batch: list[Row]) -> bool:
        try:
            await self._write(batch)
        except (AppError, asyncio.CancelledError) as error:
            self._rows.extendleft(reversed(batch))
            if not isinstance(error, AppError):
                raise
            _log.warning("rows wait for the database", rows_of=self._name, rows=len(self._rows), reason=error.reason)
            return False
        except Exception:
            if len(batch) > 1:  # one row of them may be the reason
                middle = len(batch) // 2
                self._rows.extendleft(reversed(batch[middle:]))
                return await self._store(batch[:middle])
            _log.exception("a row cannot be written, and is lost", rows_of=self._name)
            self._lost(batch[0])
        return True

    async def _go_on(self) -> None:
        while True:
            await self._some.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), self._options.seconds)
            if not await self.flush():
                await asyncio.sleep(self._options.retry_seconds)
