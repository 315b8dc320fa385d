"""Addresses of databases. It loads no driver."""

from __future__ import annotations

import re

from letta_common.errors import DatabaseUnavailable


def plain_dsn(dsn: str) -> str:
    """Return the connection string as libpq reads it: `postgresql+asyncpg://` and the like lose their driver.

    Raises:
        DatabaseUnavailable: it is empty, which libpq would read as some server of this machine.
    """
    if not dsn.strip():
        raise DatabaseUnavailable("no database is configured: set LETTA_DATABASE_URL")
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", dsn.strip())
