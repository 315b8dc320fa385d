"""A PostgreSQL server of our own, run from a wheel or from installed programs: no port, nothing left behind."""

from letta_embedded_postgres.directory import EmbeddedPostgresError
from letta_embedded_postgres.launcher import EmbeddedPostgres, PostgresOptions
from letta_embedded_postgres.programs import (
    PostgresNotFound,
    PostgresPrograms,
    PostgresTooOld,
    VectorMissing,
    find_programs,
)

__all__ = [
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "PostgresNotFound",
    "PostgresOptions",
    "PostgresPrograms",
    "PostgresTooOld",
    "VectorMissing",
    "find_programs",
]
