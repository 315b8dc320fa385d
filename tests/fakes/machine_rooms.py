"""Machines of vendors' fakes: a directory that is thrown away, and processes that end with it."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_NEW_NETWORK = 0x40000000
_NEW_USER = 0x10000000


class Room:
    """A machine. Without `network` its processes are in a network namespace where nothing is in reach."""

    def __init__(self, environment: Mapping[str, str] | None = None, *, network: bool = True) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="machine-"))
        self.ended = False
        self._environment = {"HOME": str(self.place), "TMPDIR": str(self.place), **(environment or {})}
        self._network = network
        self._processes: list[subprocess.Popen] = []

    def run(self, command: Sequence[str]) -> subprocess.Popen:
        """Start a command; `python3` is the Python of the tests."""
        if self.ended:
            raise FileNotFoundError(self.place)
        words = [sys.executable if command[0] == "python3" else command[0], *command[1:]]
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.place,
            env=self._environment | {"PATH": os.environ["PATH"]},
            preexec_fn=None if self._network else _leave_network,  # noqa: PLW1509 - it is one system call
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def end(self) -> None:
        """End what runs here, with its children, and remove the directory."""
        self.ended = True
        for process in self._processes:
            for pid in [*_descendants(process.pid), process.pid]:
                if process.poll() is None or pid != process.pid:
                    _kill(pid)
            process.wait()
        shutil.rmtree(self.place, ignore_errors=True)


def _leave_network() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK) and libc.unshare(_NEW_USER | _NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "there is no network namespace to be had")


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue
        waiting += map(int, children)
        found += map(int, children)
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
