"""The database of a stack: the one that is configured, else an embedded Postgres in LETTA_HOME."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from letta_common.process.settings import Settings
from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions
from letta_postgres.migrations import upgrade

PACKAGES = {
    "auth": "letta_auth",
    "memory": "letta_memory",
    "tools": "letta_tools",
    "llm": "letta_llm_gateway",
    "agent": "letta_agent",
}
"""Schema of each service that has one, and the package with its migrations."""


@asynccontextmanager
async def database(settings: Settings, progress: Callable[[str], None] = lambda _: None) -> AsyncIterator[str]:
    """Yield the connection string of a migrated database; an embedded server ends with the block.

    `progress` gets a line for each step.

    Raises:
        EmbeddedPostgresError: the embedded server cannot run; the message has advice.
        DatabaseUnavailable: the configured one does not answer.
    """
    if configured := settings.database_url.get_secret_value():
        progress("bringing the schemas of the database up to date ...")
        await upgrade_all(configured)
        yield configured
        return
    server = EmbeddedPostgres(settings.home / "pg", PostgresOptions(bin_dir=settings.postgres_bin))
    new = not (server.data_dir / "PG_VERSION").exists()
    what = "making a database in" if new else "starting the database in"
    progress(f"{what} {server.data_dir} with {server.programs} ...")
    await server.start_async()
    try:
        progress("bringing the schemas of the database up to date ...")
        await upgrade_all(server.dsn())
        yield server.dsn()
    finally:
        await server.stop_async()


async def upgrade_all(url: str) -> None:
    """Bring every schema to the newest revision."""
    # One alone, since it makes the extensions that all need; the others would wait for its lock.
    first, *others = PACKAGES.items()
    await upgrade(url, schema=first[0], package=first[1])
    await asyncio.gather(*(upgrade(url, schema=schema, package=package) for schema, package in others))
