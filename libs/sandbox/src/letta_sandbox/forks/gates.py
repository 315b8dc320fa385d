"""The fork server's side of a stage: starts it, lets it fork when a call wants a process, gives that what it needs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import time
from dataclasses import dataclass
from typing import Protocol

from letta_sandbox.cage import limits, namespaces, syscalls
from letta_sandbox.cage.confine import Cage, Terms
from letta_sandbox.forks import stages

# SECCOMP_IOCTL_NOTIF_RECV and SEND, and the structures that they carry: struct seccomp_notif and its response.
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTIFICATION, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
# Lets the kernel make the call after all. That is safe where what was judged stands in registers, not in memory.
_CONTINUE = 1
_EPERM = 1
# Importing the packages of a tenant may take long on a cold disk; a fork takes milliseconds.
_LOAD_SECONDS = 120.0
_FORK_SECONDS = 10.0


@dataclass(slots=True)
class Birth:
    """A process that was ordered for a call."""

    terms: Terms
    channel: socket.socket
    late_at: float
    forked: bool = False


class StageOwner(Protocol):
    """Whoever needs the processes."""

    def take_in(self, birth: Birth, process: int) -> None:
        """Take a process that has all it needs and waits for its call."""
        ...

    def has(self, process: int) -> bool:
        """Whether a process was taken in before and lives."""
        ...


class Gate:
    """Watches one stage."""

    def __init__(self, cage: Cage, index: int, poll: select.poll, owner: StageOwner) -> None:
        self.index = index
        self.births = 0
        self.ready = False
        self.birth: Birth | None = None
        self._cage = cage
        self._owner = owner
        self._poll = poll
        self._listener = -1
        self._footprint = cage.footprint
        self._signals = (syscalls.number("kill"), syscalls.number("tgkill"))
        self._visitor = namespaces.Visitor()
        self._late_at = time.monotonic() + _LOAD_SECONDS
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            stages.run(cage, theirs, index, Terms(cage.plan.stage, 0, ahead=True))
        theirs.close()
        self.pidfd = os.pidfd_open(self.pid)
        for fd in (self.pidfd, self._channel.fileno()):
            poll.register(fd, select.POLLIN)

    def knows(self, fd: int) -> bool:
        """Whether a descriptor is one of those watched."""
        return fd in (self.pidfd, self._listener, self._channel.fileno())

    def take(self, fd: int) -> bool:
        """See to a descriptor that has something to read; say whether the stage lives."""
        if fd == self.pidfd:
            return False
        if fd == self._listener:
            self._take_notification()
            return True
        return self._take_message()

    def order(self, terms: Terms) -> None:
        """Have a process made. Raises OSError when the stage has gone."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.birth = Birth(terms, ours, time.monotonic() + _FORK_SECONDS)
            socket.send_fds(self._channel, [stages.FORK], [theirs.fileno()])

    def seconds_left(self) -> float | None:
        """How long the stage may take for what it does now; nothing when it does nothing."""
        late_at = self.birth.late_at if self.birth is not None else None if self.ready else self._late_at
        return None if late_at is None else late_at - time.monotonic()

    def close(self) -> None:
        """End the stage. The processes that it made live on."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        for fd in (self.pidfd, self._listener, self._channel.fileno()):
            if fd >= 0:
                self._poll.unregister(fd)
        os.close(self.pidfd)
        if self._listener >= 0:
            os.close(self._listener)
        self._channel.close()
        self._visitor.close()
        if self.birth is not None:
            self.birth.channel.close()
            self.birth = None

    def _take_message(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._channel, 1, 1)
        if data == stages.LISTENER and len(fds) == 1 and self._listener < 0:
            self._listener = fds[0]
            self._poll.register(self._listener, select.POLLIN)
            return True
        for fd in fds:
            os.close(fd)
        if data != stages.READY or self.ready or self._listener < 0:
            return False
        self.ready = _threads(self.pid) == 1  # a process with more cannot be forked safely
        self._footprint = limits.Footprint.measure(self.pid)
        return self.ready

    def _take_notification(self) -> None:
        # The kernel refuses a holder that is not all zero.
        holder = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, holder)
        except OSError:  # who asked has died
            return
        number, process, _, call, _, _, first, *_ = _NOTIFICATION.unpack(holder)
        error, flags = -_EPERM, 0
        birth = self.birth
        if call == syscalls.number("clone") and birth is not None and process == self.pid and not birth.forked:
            birth.forked = True
            error, flags = 0, _CONTINUE
        elif call == syscalls.number("mount") and birth is not None and birth.forked and self._is_new(process):
            error = self._give(birth, process)
        elif call in self._signals and first & 0xFFFFFFFF == _own_number(process):
            error, flags = 0, _CONTINUE
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._listener, _SEND, _ANSWER.pack(number, 0, error, flags))

    def _give(self, birth: Birth, process: int) -> int:
        """Give a new process its mounts, its id and its limits; return 0 or the negative error."""
        try:
            owner = self.index if self._cage.plan.pool_base else 0
            self._visitor.furnish(process, int(birth.terms.limits["scratch_bytes"]), owner)
            limits.apply(birth.terms.limits, self._footprint, tasks_elsewhere=0, process=process)
        except OSError as error:
            return -(error.errno or _EPERM)
        self.birth = None
        self.births += 1
        self._owner.take_in(birth, process)
        return 0

    def _is_new(self, process: int) -> bool:
        """Whether a process is none that was announced before."""
        return not self._owner.has(process) and is_own_child(process)


def _own_number(thread: int) -> int:
    """Return the process id by which the process of a thread knows itself; 0 when it has died."""
    with contextlib.suppress(OSError), open(f"/proc/{thread}/status") as file:  # noqa: PTH123
        return next(int(line.split()[-1]) for line in file if line.startswith("NStgid:"))
    return 0


def _threads(process: int) -> int:
    with open(f"/proc/{process}/status") as file:  # noqa: PTH123 - pathlib is not loaded here
        return next(int(line.split()[1]) for line in file if line.startswith("Threads:"))


def is_own_child(process: int) -> bool:
    """Whether a process is a child of this one."""
    try:
        with open(f"/proc/{process}/stat") as file:  # noqa: PTH123 - pathlib is not loaded here
            return int(file.read().rpartition(")")[2].split()[1]) == os.getpid()
    except OSError:
        return False
