"""Checks before anything starts: of the home, the ports and the database."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from letta_common.process.settings import Settings
from letta_embedded_postgres import find_programs
from letta_postgres.addresses import plain_dsn


def check(settings: Settings, binds: Mapping[str, str]) -> None:
    """Look at what a start needs. `binds` has each address to listen on under the option that changes it.

    Raises:
        OSError: the home cannot be written to, a port is taken, or the address of the database cannot be read.
        EmbeddedPostgresError: no address is given, and there is no Postgres that could be run.
    """
    check_home(settings.home)
    taken: dict[str, str] = {}
    for option, bind in binds.items():
        # Both would pass the try below, which listens for a moment only.
        if bind in taken:
            raise OSError(f"cannot listen on {bind} twice: {taken[bind]} and {option} name the same port")
        taken[bind] = option
        check_port(bind, option)
    url = settings.database_url.get_secret_value()
    if url:
        _check_database(url)
    else:
        find_programs(settings.postgres_bin)


def check_home(home: Path) -> None:
    """Make the home when there is none, and write a file there. Raises OSError, saying which directory it is about."""
    advice = "choose another directory with LETTA_HOME"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A try tells more than the mode: the disk may be full or mounted read only.
        with tempfile.TemporaryFile(dir=home):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise OSError(f"{home}, where everything is kept, is a file or lies in one; {advice}") from error
    except OSError as error:
        raise OSError(f"cannot write to {home}, where everything is kept: {error.strerror}; {advice}") from error


def check_port(bind: str, option: str) -> None:
    """Listen for a moment. Raises OSError, naming the option that chooses another port."""
    host, _, port = bind.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host.strip("[]"), int(port)), family=family):
            pass
    except OSError as error:
        why = "another program listens there" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
        # A name that nobody resolves has numbers of its own, which say something else among the system's.
        if error.errno is None or isinstance(error, socket.gaierror):
            why = "it is no address of this machine"
        raise OSError(f"cannot listen on {bind}: {why}; choose another port with {option}") from error


def _check_database(url: str) -> None:
    try:
        conninfo_to_dict(plain_dsn(url))
    except Exception as error:
        # What the driver says of it quotes the address, and so the password.
        raise OSError(
            "LETTA_DATABASE_URL cannot be read as an address of Postgres; expected "
            "postgresql://user:password@host:5432/database, with options that libpq knows"
        ) from error
