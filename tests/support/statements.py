"""What clients send to a database, as the database itself counts it."""

from __future__ import annotations

import psycopg


class Statements:
    """Counts what clients sent to the database since it was made."""

    def __init__(self, dsn: str) -> None:
        self._conn = psycopg.connect(dsn, autocommit=True)
        self._conn.execute("create extension if not exists pg_stat_statements schema extensions")
        self._conn.execute("select extensions.pg_stat_statements_reset()")

    def sent(self) -> list[tuple[str, int]]:
        """Return the statements, begin and commit too, and how often each was sent; ends counting."""
        rows = self._conn.execute(
            "select query, calls from extensions.pg_stat_statements where toplevel and query not like '%pg_stat%' "
            "and dbid = (select oid from pg_database where datname = current_database())"
        ).fetchall()
        self._conn.close()
        return [(str(query), int(calls)) for query, calls in rows]
