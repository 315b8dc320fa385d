"""Whether a database answers, asked on a connection of its own: a pool that is busy is no fault of the database."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from letta_common.errors import DatabaseUnavailable

# By default health is asked for as often, so no question waits for the one before.
BEAT_SECONDS = 2.0


class Pulse:
    """One connection that is kept for signs of life and made again when it broke."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._conn: psycopg.AsyncConnection[Any] | None = None

    async def beat(self) -> None:
        """Ask for a sign of life. Raises DatabaseUnavailable when none comes within 2 seconds."""
        try:
            async with asyncio.timeout(BEAT_SECONDS):
                if self._conn is None:
                    self._conn = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
                await self._conn.execute(b"")  # an empty statement travels there and back, and is counted nowhere
        except (psycopg.Error, OSError, TimeoutError) as error:
            await self.close()
            raise DatabaseUnavailable("the database gives no sign of life", sqlstate="connection") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection."""
        conn, self._conn = self._conn, None
        if conn is not None:
            await conn.close()
