"""Dividing the vectors of a large scope into cells, so that a search looks at the nearest ones alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from letta_memory.domain.search.scopes import SearchScope

MANY = 10_000
"""From how many vectors on a scope gets cells: below, looking at all of them costs less than 10 ms."""
_IN_A_CELL = (
    60  # about: of cells that are as small, those near a query hold more of what is nearest than of larger ones
)
_MOST_CELLS = 4_000  # a search compares with the centre of each
_SAMPLE, _MOST_SAMPLED = 30, 20_000  # vectors that a cell is made from, and all of them: 40 MB
_ROUNDS = 6
_AT_ONCE = 2_000


class SearchCellStore(Protocol):
    """What the background work needs from storage, across organizations. Vectors are as pgvector sends them."""

    async def get_size(self, scope: SearchScope) -> tuple[int, int]:
        """Return the number of a scope's texts, and of its cells."""
        ...

    async def list_sample(self, scope: SearchScope, limit: int) -> list[bytes]:
        """Return some vectors of a scope."""
        ...

    async def set_centres(self, scope: SearchScope, centres: Sequence[Sequence[float]]) -> None:
        """Give a scope new cells, which are not looked at before `open_cells`."""
        ...

    async def list_centres(self, scope: SearchScope) -> list[bytes]:
        """Return the centres of a scope's cells in order."""
        ...

    async def list_unplaced(self, scope: SearchScope, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return some texts of a scope that are in no cell, by place, with their vectors."""
        ...

    async def place(self, scope: SearchScope, places: Sequence[int], cells: Sequence[int]) -> None:
        """Put texts into cells."""
        ...

    async def open_cells(self, scope: SearchScope) -> None:
        """Let searches look at the cells of a scope, and at what is in none."""
        ...


class CellMaker:
    """Divides scopes that became large, and places what was written since."""

    def __init__(self, store: SearchCellStore, *, many: int = MANY) -> None:
        self._store = store
        self._many = many

    async def see_to(self, scope: SearchScope) -> None:
        """Divide a scope that became large, or much larger than it was; else place what is in no cell yet."""
        size, cells = await self._store.get_size(scope)
        if size >= self._many and size > 3 * cells * _IN_A_CELL:
            await self._divide(scope, size)
        elif cells:
            await self._place(scope)

    async def _divide(self, scope: SearchScope, size: int) -> None:
        """Make the cells of a scope; until all its texts are placed, a search looks at each of them."""
        count = max(2, min(_MOST_CELLS, size // _IN_A_CELL))
        sample = await self._store.list_sample(scope, min(count * _SAMPLE, _MOST_SAMPLED))
        if len(sample) < count:
            return
        await self._store.set_centres(scope, await asyncio.to_thread(_centres, sample, count))
        await self._place(scope)
        await self._store.open_cells(scope)

    async def _place(self, scope: SearchScope) -> None:
        centres, after = _matrix(await self._store.list_centres(scope)), 0
        while found := await self._store.list_unplaced(scope, after, _AT_ONCE):
            cells = await asyncio.to_thread(_nearest, _matrix([vector for _, vector in found]), centres)
            await self._store.place(scope, [place for place, _ in found], cells.tolist())
            after = found[-1][0]


def _matrix(vectors: list[bytes]) -> Any:
    """Return vectors as rows of a matrix. pgvector sends the number of components, two empty bytes, and half floats."""
    import numpy  # here, since most processes never divide anything

    return numpy.stack([numpy.frombuffer(vector, ">f2", offset=4).astype("f4") for vector in vectors])


def _centres(sample: list[bytes], count: int) -> list[list[float]]:
    """Return centres of the sample by some rounds of k-means, each of length one."""
    import numpy

    rows = _matrix(sample)
    centres = rows[numpy.random.default_rng(0).permutation(len(rows))[:count]]
    for _ in range(_ROUNDS):
        nearest = _nearest(rows, centres)
        sums = numpy.zeros_like(centres)
        numpy.add.at(sums, nearest, rows)
        lengths = numpy.linalg.norm(sums, axis=1, keepdims=True)
        # A centre that nothing is near stays where it is.
        centres = numpy.where(lengths > 0, sums / numpy.maximum(lengths, 1e-9), centres)
    made: list[list[float]] = centres.tolist()
    return made


def _nearest(rows: Any, centres: Any) -> Any:
    """Return the number of the centre that each row is nearest to; in parts, since a table of all would take 300 MB."""
    import numpy

    parts = [rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)]
    return numpy.concatenate([(part @ centres.T).argmax(axis=1) for part in parts])
