"""Starts and stops the server, and starts it again when it was killed."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psycopg

from letta_embedded_postgres.directory import (
    DirectoryInUse,
    DirectoryLock,
    DiskFull,
    EmbeddedPostgresError,
    IdentityUnavailable,
    PidFile,
    SocketPathTooLong,
    StartFailed,
    VersionMismatch,
    disk_error,
    end_leftovers,
)
from letta_embedded_postgres.programs import PostgresPrograms, find_programs

log = logging.getLogger(__name__)

SUPERUSER = "letta"
DATABASE = "letta"
PORT = 5432
SOCKET_PATH_LIMIT = 107  # `sun_path` of Linux has 108 bytes with the zero at the end
START_TIMEOUT_S = 60.0
FAST_SHUTDOWN_S = 10.0
LOG_LIMIT = 10_000_000
POLL_S = 0.005
CHILD = Path(__file__).with_name("child.py")

FAST_AND_LOOSE: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum_naptime": "1h",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """How to run the server."""

    durable: bool = True
    """Off is for tests alone: a crash of the machine may then lose or spoil the data."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Server parameters, such as `shared_preload_libraries`."""
    bin_dir: Path | None = None
    """Where the programs `postgres` and `initdb` are. Default: the wheel's, else installed ones."""
    socket_dir: Path | None = None
    """Directory of the socket. Default: a short one made from the data directory's name."""
    restart: bool = True
    """Start the server again when it ends unbidden."""


class EmbeddedPostgres:
    """One PostgreSQL server on one data directory, reachable through a Unix socket and ending with this process."""

    def __init__(self, data_dir: Path, options: PostgresOptions | None = None) -> None:
        self.data_dir = data_dir.expanduser().absolute()
        self.options = options or PostgresOptions()
        self.log_file = self.data_dir.with_name(f"{self.data_dir.name}.log")
        self.programs = find_programs(self.options.bin_dir)
        self._socket_dir = self.options.socket_dir or default_socket_dir(self.data_dir)
        self._lock = DirectoryLock(self.data_dir)
        self._identity = "same"
        self._was_ready = False
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._supervisor: threading.Thread | None = None
        self._launched = threading.Event()
        self._stopping = threading.Event()

    @property
    def pid(self) -> int | None:
        """Process id of the running postmaster."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def dsn(self, database: str = DATABASE) -> str:
        """Return the connection string of a database."""
        return f"postgresql://{SUPERUSER}@/{database}?host={self._socket_dir}&port={PORT}"

    def start(self) -> None:
        """Make the data directory if there is none, start the server and wait until it answers.

        Raises:
            EmbeddedPostgresError: one of its kinds, with advice.
        """
        self._check_socket_path()
        self._lock.acquire()
        try:
            self._stopping.clear()
            self._identity = _choose_identity(self.data_dir)
            end_leftovers(self.data_dir)
            make_private_dir(self._socket_dir, self._identity)
            self._clear_sockets()
            if not (self.data_dir / "PG_VERSION").exists():
                self._initialize()
            self._was_ready = False
            self._launched.clear()
            # The kernel ties the death signal to the thread that started the child, so this one stays to the end.
            self._supervisor = threading.Thread(target=self._supervise, name="embedded-postgres", daemon=True)
            self._supervisor.start()
            self._launched.wait()
            self._await_ready()
            self._create_database()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server in good order. Does nothing when it does not run."""
        self._stopping.set()
        while self._supervisor is not None and self._supervisor.is_alive():
            if self._process is not None:
                _end(self._process)
            self._supervisor.join(0.05)
        self._supervisor = None
        self._process = None
        if self._lock.held:
            self._clear_sockets()
            self._lock.release()

    async def start_async(self) -> None:
        """Start without holding up the event loop."""
        await asyncio.to_thread(self.start)

    async def stop_async(self) -> None:
        """Stop without holding up the event loop."""
        await asyncio.to_thread(self.stop)

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _check_socket_path(self) -> None:
        path = self._socket_dir / f".s.PGSQL.{PORT}"
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
            raise SocketPathTooLong(
                f"the socket path {path} is longer than {SOCKET_PATH_LIMIT} bytes; choose a shorter socket directory"
            )

    def _initialize(self) -> None:
        """Run initdb beside the final place and rename, so that an interrupted one leaves no half directory."""
        for leftover in self.data_dir.parent.glob(f"{self.data_dir.name}.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh = self.data_dir.with_name(f"{self.data_dir.name}.new-{os.getpid()}")
        make_private_dir(fresh, self._identity)
        command = [
            str(self.programs.folder / "initdb"),
            "-D",
            str(fresh),
            "-U",
            SUPERUSER,
            "--auth=trust",
            "-E",
            "UTF8",
        ]
        command += self.programs.locale_arguments()
        command += [] if self.options.durable else ["--no-sync"]
        done = subprocess.run(
            _child_command(self._identity, command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            cwd="/",
            check=False,
        )
        if done.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            raise _explain(done.stdout.decode(errors="replace"), self.data_dir, self.programs)
        if self.data_dir.exists():  # made beforehand; `rmdir` refuses one that holds anything
            self.data_dir.rmdir()
        fresh.rename(self.data_dir)

    def _server_command(self) -> list[str]:
        parameters = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket_dir),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "jit": "off",  # compiling costs more than these short statements take
            **({} if self.options.durable else FAST_AND_LOOSE),
            **self.options.parameters,
        }
        command = [str(self.programs.folder / "postgres"), "-D", str(self.data_dir), "-p", str(PORT)]
        for name, value in parameters.items():
            command += ["-c", f"{name}={value}"]
        return _child_command(self._identity, command)

    def _launch(self) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as output:
            if output.tell() > LOG_LIMIT:
                output.truncate(0)
            self._log_start = output.tell() if output.tell() <= LOG_LIMIT else 0
            return subprocess.Popen(
                self._server_command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(),
                cwd="/",
                start_new_session=True,
            )

    def _supervise(self) -> None:
        """Start the server and wait for its end; start it again when nobody asked for the end."""
        pause = 0.1
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                end_leftovers(self.data_dir)
                self._process = self._launch()
                self._launched.set()
                outcome = f"ended with status {self._process.wait()}"
            except (OSError, EmbeddedPostgresError) as error:
                outcome = f"cannot be started: {error}"
            if self._stopping.is_set() or not self.options.restart or not self._was_ready:
                break
            log.warning("embedded PostgreSQL %s; starting it again, see %s", outcome, self.log_file)
            # One that ran for a while comes back at once; one that keeps dying is tried ever more rarely.
            pause = 0.1 if time.monotonic() - began > 10 else min(pause * 2, 30.0)
            self._stopping.wait(pause)
        self._launched.set()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            process = self._process
            if process is None or process.poll() is not None:
                raise _explain(self._log_tail(), self.data_dir, self.programs)
            if PidFile.read(self.data_dir).is_ready(process.pid):
                self._was_ready = True
                return
            if time.monotonic() > deadline:
                raise StartFailed(f"PostgreSQL is not ready after {START_TIMEOUT_S:.0f} s; see {self.log_file}")
            time.sleep(POLL_S)

    def _log_tail(self) -> str:
        try:
            return self.log_file.read_bytes()[self._log_start :][-4000:].decode(errors="replace")
        except OSError:
            return ""

    def _create_database(self) -> None:
        try:
            with psycopg.connect(self.dsn("postgres"), autocommit=True) as conn:
                if conn.execute("select 1 from pg_database where datname = %s", (DATABASE,)).fetchone() is None:
                    conn.execute(f"create database {DATABASE}")
        except psycopg.Error as error:
            raise _explain(str(error), self.data_dir, self.programs) from error

    def _clear_sockets(self) -> None:
        """Remove what a killed server left: a process with its number would make the next one refuse to start."""
        if self.options.socket_dir is None and self._socket_dir.exists():
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            if not self._stopping.is_set():
                make_private_dir(self._socket_dir, self._identity)


def default_socket_dir(data_dir: Path) -> Path:
    """Return a short directory name that belongs to the data directory and to this user."""
    tag = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    return Path(f"/tmp/letta-{os.getuid()}-{tag}")  # noqa: S108 the directory is private, and checked to be


def make_private_dir(path: Path, identity: str = "same") -> None:
    """Make a directory that only the server's user may enter. Raises EmbeddedPostgresError when a stranger owns it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, path) from error
    uid = os.getuid() if identity in {"same", "userns"} else int(identity.split(":", maxsplit=1)[0])
    state = path.lstat()
    if state.st_uid not in {uid, os.getuid()} or path.is_symlink():
        raise EmbeddedPostgresError(f"{path} belongs to user {state.st_uid}; remove it or choose another directory")
    if state.st_uid != uid:
        os.chown(path, uid, int(identity.split(":")[1]))
    if state.st_mode & 0o077:
        path.chmod(0o700)


def _child_command(identity: str, command: Sequence[str]) -> list[str]:
    return [sys.executable, "-I", "-S", str(CHILD), str(os.getpid()), identity, *command]


def _environment() -> dict[str, str]:
    # English messages, whatever the language of the user: `_explain` reads them.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _choose_identity(data_dir: Path) -> str:
    """Say as whom to run. The owner of an existing directory is kept."""
    if os.getuid() != 0:
        return "same"
    owner = data_dir.stat() if data_dir.exists() else None
    if owner is not None and owner.st_uid != 0:
        return f"{owner.st_uid}:{owner.st_gid}"
    probe = subprocess.run(
        _child_command("userns", [sys.executable, "-I", "-S", "-c", ""]), capture_output=True, check=False
    )
    if probe.returncode == 0:
        return "userns"
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        if owner is not None:
            _give_away(data_dir, user.pw_uid, user.pw_gid)
        return f"{user.pw_uid}:{user.pw_gid}"
    raise IdentityUnavailable(
        "PostgreSQL refuses to run as root, and here are neither user namespaces nor the users postgres or nobody; run "
        "as an ordinary user, or set LETTA_DATABASE_URL"
    )


def _give_away(directory: Path, uid: int, gid: int) -> None:
    for root, names, files in os.walk(directory):
        for name in (".", *names, *files):
            os.chown(Path(root, name), uid, gid, follow_symlinks=False)


def _end(process: subprocess.Popen[bytes]) -> None:
    # Fast shutdown first, then one without a checkpoint, which the next start makes good.
    for sign, patience in ((signal.SIGINT, FAST_SHUTDOWN_S), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        try:
            process.send_signal(sign)
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        return


def _explain(output: str, data_dir: Path, programs: PostgresPrograms) -> EmbeddedPostgresError:
    """Turn what a PostgreSQL program printed into the error that tells what to do."""
    last = "; ".join(line.strip() for line in output.strip().splitlines()[-6:])
    if "No space left on device" in output:
        return DiskFull(f"no space left for {data_dir}; free some, or choose another LETTA_HOME ({last})")
    if "incompatible with server" in output or "not compatible with this version" in output:
        made_by = (data_dir / "PG_VERSION").read_text().strip()
        return VersionMismatch(
            f"{data_dir} was made by PostgreSQL {made_by}, the programs in {programs.folder} are of another version; "
            f"point LETTA_POSTGRES_BIN at programs of PostgreSQL {made_by}, dump it with them and load it with the new "
            "ones, or choose another LETTA_HOME"
        )
    if "already exists" in output and "postmaster.pid" in output:
        return DirectoryInUse(f"another PostgreSQL uses {data_dir} ({last})")
    return StartFailed(f"PostgreSQL did not start on {data_dir}: {last}")
