"""The data directory of the embedded PostgreSQL: who holds it, who works in it, and what can be wrong with it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# A fast shutdown (SIGINT) may take as long as a checkpoint; then SIGQUIT ends it without one.
LEFTOVERS_TIMEOUT_S = 20.0
HURRY_AFTER_S = 10.0
LOCK_GRACE_S = 1.0
"""A killed holder takes a moment to end."""


class EmbeddedPostgresError(Exception):
    """The embedded database cannot run; the message says why and what to do."""


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
class PidFile:
    """What `postmaster.pid` says. A stale one says "ready" too, so the pid counts."""

    pid: int = 0
    status: str = ""

    @classmethod
    def read(cls, data_dir: Path) -> PidFile:
        try:
            lines = (data_dir / "postmaster.pid").read_text().splitlines()
            # A negative number is that of a server in single-user mode; the eighth line is the status.
            return cls(abs(int(lines[0])), lines[7].strip() if len(lines) > 7 else "")
        except (OSError, ValueError, IndexError):
            return cls()

    def is_ready(self, pid: int) -> bool:
        return self.pid == pid and self.status == "ready"


def processes_in(data_dir: Path) -> list[int]:
    """Return the server processes of the directory: a postmaster and its children stand in it."""
    if Path("/proc/self/cwd").exists():
        place = str(data_dir.resolve())
        return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit() and _is_server(entry, place)]
    pid = PidFile.read(data_dir).pid
    return [pid] if pid and _is_alive(pid) else []


def _is_server(entry: os.DirEntry[str], place: str) -> bool:
    try:
        process = Path(entry.path)
        return str((process / "cwd").readlink()) == place and (process / "comm").read_text().strip() == "postgres"
    except OSError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end_leftovers(data_dir: Path) -> None:
    """Wait for, and hurry, what a killed owner or postmaster left; the directory's lock is ours.

    Raises:
        DirectoryInUse: something in the directory does not end.
    """
    began = time.monotonic()
    hurried = False
    while pids := processes_in(data_dir):
        waited = time.monotonic() - began
        if waited > LEFTOVERS_TIMEOUT_S:
            raise DirectoryInUse(f"processes {pids} still use {data_dir} and do not end; end them and start again")
        if not hurried or waited > HURRY_AFTER_S:
            _signal_postmaster(data_dir, pids, signal.SIGINT if waited < HURRY_AFTER_S else signal.SIGQUIT)
            hurried = True
        time.sleep(0.02)
    # Its number may belong to another process by now, which would keep PostgreSQL from starting.
    (data_dir / "postmaster.pid").unlink(missing_ok=True)


def _signal_postmaster(data_dir: Path, pids: Sequence[int], sign: signal.Signals) -> None:
    pid = PidFile.read(data_dir).pid
    if pid in pids:
        try:
            os.kill(pid, sign)
        except OSError as error:
            raise DirectoryInUse(f"PostgreSQL process {pid} uses {data_dir} and is not ours to end") from error


class DirectoryLock:
    """A lock beside the data directory that dies with its process. Its file says who holds it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._path = data_dir.with_name(f"{data_dir.name}.lock")
        self._file: IO[str] | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def acquire(self) -> None:
        """Take the lock. Raises DirectoryInUse, which names the holder."""
        self._refuse_own()
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = self._path.open("a+")
        except OSError as error:
            raise disk_error(error, self._path) from error
        deadline = time.monotonic() + LOCK_GRACE_S
        while not _try_lock(handle):
            if time.monotonic() > deadline:
                handle.seek(0)
                with handle:
                    raise DirectoryInUse(self._held_by(handle.read()))
            time.sleep(0.02)
        # Opened to append, so that a file whose lock somebody else holds keeps what it says.
        handle.truncate(0)
        handle.write(json.dumps({"pid": os.getpid(), "command": " ".join(sys.argv)[:200]}))
        handle.flush()
        self._file = handle

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _refuse_own(self) -> None:
        """Raise DirectoryInUse when this process runs the server: a process gets its own record lock a second time."""
        pid = PidFile.read(self._data_dir).pid
        if self._file is not None or (pid in processes_in(self._data_dir) and _parent(pid) == os.getpid()):
            raise DirectoryInUse(f"this process already runs PostgreSQL (pid {pid}) on {self._data_dir}")

    def _held_by(self, text: str) -> str:
        try:
            holder = json.loads(text)
            who = f"process {holder['pid']} ({holder['command']})"
        except (ValueError, KeyError, TypeError):
            who = "another process"
        pid = PidFile.read(self._data_dir).pid
        return (
            f"{who} already runs PostgreSQL (pid {pid}) on {self._data_dir}; stop it, choose another LETTA_HOME, or "
            "share its database through LETTA_DATABASE_URL"
        )


def _try_lock(handle: IO[str]) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def disk_error(error: OSError, path: Path) -> EmbeddedPostgresError:
    if error.errno == errno.ENOSPC:
        return DiskFull(f"no space left for {path}; free some, or choose another LETTA_HOME")
    return EmbeddedPostgresError(f"cannot use {path}: {error.strerror}; choose another LETTA_HOME")
