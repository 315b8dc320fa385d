"""Statements of SQLAlchemy Core that run hot: compiled once, with the names of their parameters in place of values."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import psycopg

from letta_postgres.db import Database
from letta_postgres.statements import Row

_DIALECT: sa.Dialect = psycopg.dialect()  # type: ignore[no-untyped-call]


class Compiled:
    """A statement. What it takes anew at each run it names with `sa.bindparam`."""

    __slots__ = ("_given", "_text")

    def __init__(self, statement: sa.ClauseElement) -> None:
        compiled = statement.compile(dialect=_DIALECT)
        self._text, self._given = str(compiled), compiled.params

    async def run(self, db: Database, **values: Any) -> list[Row]:
        """Run the statement in autocommit, one round trip, and return its rows."""
        return await db.hot(self._text, {**self._given, **values})
