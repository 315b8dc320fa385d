"""Rows that are written in batches."""

from __future__ import annotations

import asyncio

import pytest

from letta_common.errors import DatabaseUnavailable
from letta_common.process.batches import BatchOptions, BatchWriter

NEVER = 3600.0


class Table:
    """Keeps batches; fails as it is told."""

    def __init__(self) -> None:
        self.batches: list[list[object]] = []
        self.away = False
        self.lost: list[object] = []
        self.written = asyncio.Semaphore(0)

    @property
    def rows(self) -> list[object]:
        return [row for batch in self.batches for row in batch]

    async def write(self, batch: list[object]) -> None:
        if self.away:
            raise DatabaseUnavailable("away")
        if "bad" in batch:
            raise ValueError("a value that no column takes")
        self.batches.append(list(batch))
        self.written.release()


@pytest.fixture
def table() -> Table:
    return Table()


def writer(table: Table, seconds: float = NEVER, rows: int = 4, most: int = 100, **more) -> BatchWriter[object]:
    options = BatchOptions(seconds, rows, most, retry_seconds=0.001)
    return BatchWriter("rows", table.write, options, lost=table.lost.append, **more)


async def test_a_batch_is_written_after_a_time_or_when_it_is_full(table):
    soon = writer(table, seconds=0.001)
    soon.start()
    soon.put(1)
    async with asyncio.timeout(10):
        await table.written.acquire()
    await soon.close()

    full = writer(table)
    full.start()
    for row in (2, 3, 4, 5):
        full.put(row)
    async with asyncio.timeout(10):
        await table.written.acquire()
    await full.close()
    assert table.batches == [[1], [2, 3, 4, 5]]


async def test_a_batch_can_be_hastened(table):
    some = writer(table)
    some.start()
    some.hasten(0)  # of what comes later nobody said anything
    some.put(1)
    some.put(2)
    for _ in range(3):
        some.hasten(0)
    async with asyncio.timeout(10):
        await table.written.acquire()
    some.put(3)
    await asyncio.sleep(0.01)
    assert table.batches == [[1, 2]]
    await some.close()


async def test_rows_stay_in_order_while_the_database_is_away(table):
    table.away = True
    some = writer(table, seconds=0.001)
    some.start()
    for row in range(6):
        some.put(row)
    assert not await some.flush()
    table.away = False
    async with asyncio.timeout(10):
        await table.written.acquire()
        await table.written.acquire()
    await some.close()
    assert table.batches == [[0, 1, 2, 3], [4, 5]]


@pytest.mark.parametrize("at", range(9))
async def test_a_row_that_cannot_be_written_costs_only_itself(table, at):
    some = writer(table, rows=4)
    rows: list[object] = [*range(at), "bad", *range(at, 8)]
    for row in rows:
        some.put(row)
    assert await some.flush()
    assert (table.rows, table.lost) == (list(range(8)), ["bad"])


async def test_the_oldest_are_lost_when_too_many_wait(table):
    some = writer(table, most=3)
    for row in range(5):
        some.put(row)
    await some.close()
    assert (table.rows, table.lost) == ([2, 3, 4], [0, 1])


async def test_heavy_rows_make_small_batches(table):
    some = writer(table, weight=lambda row: row)
    for row in (1, 3, 9, 2, 2, 1):
        some.put(row)
    await some.close()
    assert table.batches == [[1, 3], [9], [2, 2], [1]]


async def test_the_end_waits_for_the_batch_in_hand_and_writes_the_rest():
    begun, go_on, written = asyncio.Event(), asyncio.Event(), []

    async def write(batch: list[object]) -> None:
        begun.set()
        await go_on.wait()
        written.append(list(batch))

    some = BatchWriter("rows", write, BatchOptions(NEVER, 2, 100))
    some.start()
    some.put(1)
    some.put(2)
    await begun.wait()
    some.put(3)
    ending = asyncio.ensure_future(some.close())
    await asyncio.sleep(0)
    go_on.set()
    await ending
    assert written == [[1, 2], [3]]


async def test_who_waits_for_a_batch_may_give_up_without_a_loss():
    go_on, written = asyncio.Event(), []

    async def write(batch: list[object]) -> None:
        await go_on.wait()
        written.append(list(batch))

    some = BatchWriter("rows", write, BatchOptions(NEVER, 2, 100))
    some.put(1)
    waiting = asyncio.ensure_future(some.flush())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    go_on.set()
    await some.close()
    assert written == [[1]]
