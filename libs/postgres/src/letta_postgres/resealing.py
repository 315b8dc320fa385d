"""Sealing anew, with the first of the deployment's secrets, what a former one sealed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog

from letta_common.errors import InternalError
from letta_common.sealing import SealedAt, Sealer
from letta_postgres.db import Database

# Bounds what lies opened in memory at once.
_BATCH = 500
_log = structlog.get_logger("letta.sealing")


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column of sealed secrets."""

    name: str
    """`schema.table.column`, as in the places of its secrets."""
    row: tuple[str, ...] = ("id",)
    """Columns that name the row within its organization."""
    organization: str = "organization_id"
    """Empty where the rows are the deployment's own."""

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that name a row."""
        return (self.organization, *self.row) if self.organization else self.row


class Resealer:
    """Goes through the sealed columns of a service: a statement of the system, over all organizations."""

    def __init__(self, db: Database, sealer: Sealer, columns: Sequence[SealedColumn]) -> None:
        self._db, self._sealer, self._columns = db, sealer, columns

    async def reseal(self) -> int:
        """Seal anew what another secret than the first sealed; return how many rows were."""
        total = 0
        for column in self._columns:
            done = await self._column(column)
            total += done
            if done:
                _log.warning("secrets were sealed with the encryption key of now", column=column.name, rows=done)
        return total

    async def _column(self, column: SealedColumn) -> int:
        names = column.key
        schema, of, name = column.name.split(".")
        table = sa.table(of, *map(sa.column, (*names, name)), schema=schema)
        sealed, key = table.c[name], [table.c[each] for each in names]
        begins = self._sealer.begins
        others = sa.select(*key, sealed).where(
            sa.func.length(sealed) > 0, sa.func.substr(sealed, 1, len(begins)) != begins
        )
        done, after = 0, None
        while True:  # past each batch, so that what opens with no secret does not hold up the others
            page = others if after is None else others.where(sa.tuple_(*key) > sa.tuple_(*after))
            async with self._db.connect() as conn:
                rows = (await conn.execute(page.order_by(*key).limit(_BATCH))).all()
            for row in rows:
                done += await self._row(column, table, row)
            if len(rows) < _BATCH:
                return done
            after = rows[-1][:-1]

    async def _row(self, column: SealedColumn, table: sa.TableClause, row: Sequence[Any]) -> int:
        names, name = column.key, column.name.rpartition(".")[2]
        organization_id, keys = (row[0], row[1:-1]) if column.organization else ("", row[:-1])
        place, was = SealedAt(column.name, organization_id, "/".join(keys)), bytes(row[-1])
        try:
            anew = self._sealer.seal(place, self._sealer.open(place, was))
        except InternalError as error:
            _log.error("a secret opens with no key", column=column.name, row=place.row, message=error.message)
            return 0
        same = [table.c[each] == value for each, value in zip(names, row[:-1], strict=True)]
        statement = sa.update(table).where(*same, table.c[name] == was)  # unless it was changed meanwhile
        async with self._db.begin() as conn:
            return (await conn.execute(statement.values({name: anew}))).rowcount
