"""Which passages are used, in PostgreSQL. These are system statements: they span organizations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from letta_memory.domain.archival.uses import PassageKey
from letta_postgres.db import Database, retry
from letta_postgres.statements import call

_NOTE = f"select n.organization_id, n.archive_id from {call('memory.note_uses', 'orgs', 'archives', 'ids', 'times')} n"


class SqlUseStore:
    """Uses of passages in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def note_uses(self, uses: Mapping[PassageKey, datetime]) -> set[tuple[str, str]]:
        """Note when passages were used; return the organizations and archives that keep what nobody uses."""
        values = {
            "orgs": [key.organization_id for key in uses],
            "archives": [key.archive_id for key in uses],
            "ids": [key.passage_id for key in uses],
            "times": list(uses.values()),
        }
        return {(row[0], row[1]) for row in await retry(lambda: self._db.hot(_NOTE, values))}
