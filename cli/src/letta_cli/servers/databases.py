"""The database of a stack: the one that is configured, else an embedded Postgres in LETTA_HOME."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from letta_common.process.settings import Settings
from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions


@asynccontextmanager
async def database(
    settings: Settings,
    upgrade: Callable[[str], Awaitable[None]],
    progress: Callable[[str], None] = lambda _: None,
    *,
    connections: int = 200,
) -> AsyncIterator[str]:
    """Yield the connection string of a database after its `upgrade`; an embedded server ends with the block.

    `progress` gets a line for each step. An embedded server admits so many `connections`.

    Raises:
        EmbeddedPostgresError: the embedded server cannot run; the message has advice.
        DatabaseUnavailable: the configured one does not answer.
    """
    if configured := settings.database_url.get_secret_value():
        progress("bringing the schemas of the database up to date ...")
        await upgrade(configured)
        yield configured
        return
    options = PostgresOptions(bin_dir=settings.postgres_bin, parameters={"max_connections": str(connections)})
    server = EmbeddedPostgres(settings.home / "pg", options)
    new = not (server.data_dir / "PG_VERSION").exists()
    what = "making a database in" if new else "starting the database in"
    progress(f"{what} {server.data_dir} with {server.programs} ...")
    await server.start_async()
    try:
        progress("bringing the schemas of the database up to date ...")
        await upgrade(server.dsn())
        yield server.dsn()
    finally:
        await server.stop_async()
