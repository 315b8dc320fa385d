"""Functions of the database: one file each in `<package>/store/sql/functions`, applied after the tables.

A function carries in its comment which release wrote it and the hash of its file, so that one query tells what changed.
While two releases run side by side, the older one leaves what the newer one wrote; a function whose parameters change
therefore gets a new name, and its old file stays for one release more.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from letta_common.process.faults import MigrationFailed

FOLDER = Path("store", "sql", "functions")
_MARK = "letta"
_PRESENT = """
select p.proname, p.oid::regprocedure::text, coalesce(obj_description(p.oid, 'pg_proc'), '')
from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = %s
"""


@dataclass(frozen=True, slots=True)
class Function:
    """The file of a function: the name of both, its statements, and the hash of them."""

    name: str
    text: str
    digest: str


@dataclass(frozen=True, slots=True)
class Functions:
    """The functions of a package and the release that they belong to."""

    release: tuple[int, ...]
    files: tuple[Function, ...]

    @classmethod
    def of(cls, package: str, directory: Path) -> Functions:
        """Read the functions of an installed package that lies in this directory."""
        paths = sorted((directory / FOLDER).glob("*.sql"))
        return cls(_release(package), tuple(_read(path) for path in paths))

    def stale(self, conn: psycopg.Connection[Any], schema: str) -> list[Function]:
        """Return the functions that the database has not, or has from another file of this release or an older one."""
        present = {name: _mark(comment) for name, _, comment in conn.execute(_PRESENT, (schema,))}
        return [file for file in self.files if self._outdates(present.get(file.name), file)]

    def apply(self, conn: psycopg.Connection[Any], schema: str) -> None:
        """Write what is stale and drop what has no file any more. The caller holds the lock and commits.

        Raises:
            MigrationFailed: a function changed its parameters or its result and kept its name.
        """
        conn.execute("set local check_function_bodies = off")  # since they call each other, whatever comes first
        for file in self.stale(conn, schema):
            try:
                conn.execute(file.text.encode())
            except psycopg.errors.InvalidFunctionDefinition as error:
                raise _renamed(schema, file.name) from error
            self._sign(conn, schema, file)
        self._drop(conn, schema)

    def _sign(self, conn: psycopg.Connection[Any], schema: str, file: Function) -> None:
        found = [signature for name, signature, _ in conn.execute(_PRESENT, (schema,)) if name == file.name]
        # To Postgres a function with other parameters is a second one of that name, and the first one stays.
        if len(found) != 1:
            raise _renamed(schema, file.name)
        mark = f"{_MARK} {'.'.join(map(str, self.release))} {file.digest}"
        conn.execute(sql.SQL("comment on function {} is {}").format(sql.SQL(found[0]), sql.Literal(mark)))

    def _drop(self, conn: psycopg.Connection[Any], schema: str) -> None:
        names = {file.name for file in self.files}
        for name, signature, comment in conn.execute(_PRESENT, (schema,)).fetchall():
            mark = _mark(comment)
            if name not in names and mark is not None and mark[0] <= self.release:
                conn.execute(f"drop function {signature}".encode())

    def _outdates(self, mark: tuple[tuple[int, ...], str] | None, file: Function) -> bool:
        return mark is None or (mark[1] != file.digest and mark[0] <= self.release)


def _read(path: Path) -> Function:
    text = path.read_text()
    return Function(path.stem, text, hashlib.sha256(text.encode()).hexdigest()[:16])


def _release(package: str) -> tuple[int, ...]:
    try:
        version = importlib.metadata.version(package.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return (0,)
    return _numbers(version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _mark(comment: str) -> tuple[tuple[int, ...], str] | None:
    """Return the release and the hash that a function's comment names, or None where it names none."""
    parts = comment.split()
    return (_numbers(parts[1]), parts[2]) if len(parts) == 3 and parts[0] == _MARK else None


def _renamed(schema: str, name: str) -> MigrationFailed:
    return MigrationFailed(
        f"function {schema}.{name} changed its parameters or its result: give it a new name and keep the old file for "
        "one release"
    )
