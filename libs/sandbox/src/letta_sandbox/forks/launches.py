"""The first process around one program: isolates itself, starts the program confined, and ends all that comes of it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from letta_sandbox.cage import landlock, namespaces, syscalls
from letta_sandbox.cage.confine import Cage, Terms, drop_bounding_set
from letta_sandbox.cage.plan import DEVICES, NAMESPACE, NONE, SETUP_FAILED, Plan

_MESSAGE_LIMIT = 65536
# Arguments and environment, of which the kernel takes 6 MiB at most.
_LONGEST_ORDER = 8 << 20
# There is one program, so its id is the first of the pool.
_INDEX = 1
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Limits bound each process; what all of them hold together must be summed up, which costs reading /proc.
_WATCH_MS = 500
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Order:
    """What to start, and what it may use."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    limits: dict[str, float]
    tasks: int

    @classmethod
    def read(cls, file: int) -> Order:
        """Read an order to its end."""
        parts = []
        while part := os.read(file, 1 << 16):
            parts.append(part)
            if sum(map(len, parts)) > _LONGEST_ORDER:
                raise OSError("the order is too long")
        values: dict[str, Any] = json.loads(b"".join(parts))
        return cls(tuple(values["arguments"]), values["environment"], values["limits"], values["tasks"])


def main(control_fd: int) -> None:
    """Take the plan, isolate, take the order, start the program, stay until it or the service ends."""
    control = socket.socket(fileno=control_fd)
    try:
        plan = Plan.read(control.recv(_MESSAGE_LIMIT))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        drop_bounding_set()
        family = _isolate(plan)
        cage = Cage.make(plan)
        namespaces.tell_ready(control, plan)
        data, fds, _, _ = socket.recv_fds(control, 1, 4)
        if not data:
            os._exit(0)
        keeper = Keeper(control, family, *_started(cage, fds))
    except (OSError, ValueError) as error:
        control.send(json.dumps({"fatal": str(error)}).encode())
        os._exit(SETUP_FAILED)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # its descriptors are no business of a program of the same user
    keeper.stay()
    os._exit(0)


def _isolate(plan: Plan) -> Family:
    """Become the first process of namespaces, or the ancestor that no descendant escapes. Raises OSError."""
    if plan.tier == NAMESPACE:
        namespaces.enter(plan)
        return Family(own_processes=True)
    # Orphans come to this process and not to the host's first one, so that `Family` finds every descendant.
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    if plan.tier == NONE:
        return Family()
    if landlock.bounds_signals():
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        everything = landlock.ruleset(("/",), (), DEVICES, programs=True)
        landlock.restrict(everything)
        os.close(everything)
        return Family(bounded=True)
    if not plan.pool_base:
        raise OSError(38, "Landlock of this kernel does not bound signals, and there are no other user ids")
    return Family(user=plan.pool_base + _INDEX)


def _started(cage: Cage, fds: list[int]) -> tuple[int, Order]:
    """Start the program; return its process. Raises OSError when it cannot be started."""
    order = Order.read(fds[0])
    os.close(fds[0])
    # The pipe closes as the program begins, so an empty read means that `execvpe` has succeeded.
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _become(cage, order, fds[1:], writing)
    os.close(writing)
    for fd in fds[1:]:
        os.close(fd)
    fault = os.read(reading, 400).decode(errors="replace")
    os.close(reading)
    if fault:
        os.waitpid(child, 0)
        raise OSError(2, fault)
    return child, order


def _become(cage: Cage, order: Order, streams: list[int], writing: int) -> None:
    """Confine this process and turn it into the program. Never returns."""
    try:
        os.setsid()
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        _keep_only(writing, cage.rules)
        if cage.plan.tier == NAMESPACE:
            namespaces.enter_call()
        # A program inherits which signals are ignored: Python ignores two of these, and `main` the first.
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        # Programs run for long; single calls, which somebody waits for, go before them.
        os.nice(5)
        cage.confine(Terms(order.limits, order.tasks, ahead=False), _INDEX)
        os.execvpe(order.arguments[0], list(order.arguments), order.environment)
    except BaseException as error:
        os.write(writing, f"{order.arguments[0]}: {error}".encode(errors="replace")[:400])
    finally:
        os._exit(SETUP_FAILED)


def _keep_only(*kept: int) -> None:
    """Close every descriptor but the standard ones and these, which end as the program begins."""
    first = 3
    for fd in sorted(each for each in kept if each >= 0):
        os.set_inheritable(fd, False)
        if fd > first:
            syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first)


@dataclass(frozen=True, slots=True)
class Family:
    """All that descends from the program. `bounded`: Landlock lets this process signal nobody else."""

    own_processes: bool = False
    bounded: bool = False
    user: int = 0

    def memory(self) -> int:
        """Return how many bytes the family holds for itself."""
        total = 0
        for process in self._members():
            with contextlib.suppress(OSError), open(f"/proc/{process}/statm", "rb") as file:  # noqa: PTH123
                fields = file.read().split()
                total += (int(fields[1]) - int(fields[2])) * _PAGE
        return total

    def _members(self) -> Iterator[int]:
        if self.own_processes:
            # Process 1 of the namespace is this one.
            names = os.listdir("/proc")  # noqa: PTH208 - pathlib is not loaded here
            yield from (int(name) for name in names if name.isdecimal() and name != "1")
            return
        waiting = [os.getpid()]
        while waiting:
            parent = waiting.pop()
            found: list[int] = []
            with contextlib.suppress(OSError), open(f"/proc/{parent}/task/{parent}/children", "rb") as file:  # noqa: PTH123
                found = [int(name) for name in file.read().split()]
            yield from found
            waiting += found

    def end(self) -> None:
        """End every member. In a process namespace the end of this process does that."""
        if self.own_processes:
            return
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            self._signal()
            if not _reap_all():
                return

    def _signal(self) -> None:
        # -1 signals whomever this process may signal. Landlock must hold already, or that would be the whole host.
        if self.bounded and not _may_signal(os.getppid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(-1, signal.SIGKILL)
        elif self.user:
            self._signal_as_user()
        else:
            for process in list(self._members()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)

    def _signal_as_user(self) -> None:
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setresgid(self.user, self.user, self.user)
                os.setresuid(self.user, self.user, self.user)
                # The signal goes to -1, so both must be certain: the id has changed, and it reaches nobody outside.
                if os.getuid() == self.user and not _may_signal(os.getppid()):
                    os.kill(-1, signal.SIGKILL)
            finally:
                os._exit(0)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def _may_signal(process: int) -> bool:
    """Whether this process could signal another that is none of the family's."""
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def _reap_all() -> bool:
    """Collect the dead; say whether some children live."""
    try:
        while True:
            # 0 says that children live, most of them dying already: they get a moment.
            process, _ = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                time.sleep(0.005)
                return True
    except ChildProcessError:
        return False


class Keeper:
    """Stays with a program: collects its dead, watches its memory, ends it when it or the service ends."""

    def __init__(self, control: socket.socket, family: Family, child: int, order: Order) -> None:
        self._control = control
        self._family = family
        self._child = child
        self._most = int(order.limits["memory_bytes"])

    def stay(self) -> None:
        """Return when nothing of the program is left, or will not be once this process ends."""
        self._control.send(b'{"started":true}')
        report = self._wait()
        self._family.end()
        with contextlib.suppress(OSError):
            self._control.send(json.dumps(report).encode())

    def _wait(self) -> dict[str, Any]:
        poll = select.poll()
        poll.register(self._control.fileno(), select.POLLIN)
        poll.register(os.pidfd_open(self._child), select.POLLIN)
        while True:
            events = dict(poll.poll(_WATCH_MS))
            if self._control.fileno() in events:
                return {"ended": "told"}
            ended = self._collect()
            if ended is not None:
                return {"ended": "exit", "status": ended}
            if self._family.memory() > self._most:
                return {"ended": "memory"}

    def _collect(self) -> int | None:
        """Collect the dead; return the status of the program when it is one of them."""
        found: int | None = None
        with contextlib.suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG)
                if process == 0:
                    return found
                if process == self._child:
                    found = status
        return found
