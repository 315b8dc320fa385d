"""Whose machines are whose: a process holds a lock as long as it lives, so that another one can tell when it died."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from letta_sandbox.remote.machines import OWNER, ROLE, TOOL_CALL, UNTIL


class MachineOwner:
    """This process as the owner of machines.

    Its name is a file in `directory`, locked until the process ends in whatever way. Processes without a common
    directory cannot tell whether another one lives; they only see what has outlived its own time.
    """

    def __init__(self, directory: Path | None) -> None:
        self.name = secrets.token_hex(8)
        self._directory = directory
        self._file: int | None = None

    def begin(self) -> None:
        """Say that this process lives."""
        if self._directory is None or self._file is not None:
            return
        with contextlib.suppress(OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self._directory / self.name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def labels(self, seconds: float) -> dict[str, str]:
        """Return the labels of a machine that exists for so many seconds at most."""
        return {ROLE: TOOL_CALL, OWNER: self.name, UNTIL: str(int(time.time() + seconds) + 1)}

    def is_orphan(self, labels: Mapping[str, str]) -> bool:
        """Tell whether nobody is left who would end a machine with these labels."""
        if labels.get(ROLE) != TOOL_CALL or labels.get(OWNER) == self.name:
            return False
        until = labels.get(UNTIL, "")
        return (until.isdecimal() and int(until) < time.time()) or self._is_dead(labels.get(OWNER, ""))

    def forget_dead(self) -> None:
        """Remove the files of processes that are dead and have no machine left."""
        if self._directory is None:
            return
        with contextlib.suppress(OSError):
            for file in self._directory.iterdir():
                if file.name != self.name and self._is_dead(file.name):
                    file.unlink(missing_ok=True)

    def end(self) -> None:
        """Say that this process has no machine left."""
        if self._file is not None and self._directory is not None:
            with contextlib.suppress(OSError):
                (self._directory / self.name).unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def _is_dead(self, name: str) -> bool:
        """Say whether a process of this name was here and has ended: its lock is free."""
        if self._directory is None or not name.isalnum():
            return False
        try:
            file = os.open(self._directory / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(file)
