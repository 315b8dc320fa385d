"""The fork server: a small warm process that forks one process for each call and reports how it ended."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from letta_sandbox.cage import namespaces, syscalls
from letta_sandbox.cage.confine import Cage, Terms, drop_bounding_set
from letta_sandbox.cage.limits import private_bytes
from letta_sandbox.cage.plan import NAMESPACE, NONE, Plan
from letta_sandbox.forks import slots
from letta_sandbox.forks.gates import Birth, Gate, is_own_child

_MESSAGE_LIMIT = 65536
# A call that ends sooner never has to yield to others.
_LOW_PRIORITY_AFTER = 0.1
_LEAST_PRIORITY = 19
# A package that ends its process as it is imported would be loaded again and again.
_MOST_STAGES_LOST = 3
_SIGNALS = {"pause": signal.SIGSTOP, "resume": signal.SIGCONT}


@dataclass(slots=True)
class _Slot:
    pid: int
    pidfd: int
    index: int
    terms: Terms
    channel: socket.socket | None
    call: int = 0
    lent: bool = False
    base: int = 0


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A call that waits for a process of the stage."""

    number: int
    terms: Terms
    fds: tuple[int, ...]

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


def main(control_fd: int) -> None:
    """Take the plan from the control socket, isolate, say that all is ready, serve until the socket closes."""
    control = socket.socket(fileno=control_fd)
    try:
        plan = Plan.read(control.recv(_MESSAGE_LIMIT))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _preload(plan)
        drop_bounding_set()
        if plan.tier == NAMESPACE:
            namespaces.enter(plan)
        elif plan.tier == NONE:
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        server = SlotForker(control, Cage.make(plan))
        namespaces.tell_ready(control, plan)
    except (OSError, ImportError) as error:
        control.send(json.dumps({"fatal": str(error)}).encode())
        raise SystemExit(1) from error
    server.serve()


def _preload(plan: Plan) -> None:
    """Import what most tools use. All of it is the service's own; packages of tenants never come here."""
    own = sys.path[0]
    sys.path[:] = [own, *plan.import_path, *plan.preload_path]
    for name in plan.preload:
        importlib.import_module(name)
    sys.path[:] = plan.import_path
    sys.path_importer_cache.clear()
    gc.collect()
    # A collection in a child would write to the headers of all objects, and so copy every page that it shares.
    gc.freeze()
    gc.disable()


class SlotForker:
    """Forks slots, hands calls to them, ends them when the host asks for it, and reports each end."""

    def __init__(self, control: socket.socket, cage: Cage) -> None:
        self._control = control
        self._cage = cage
        self._plan = cage.plan
        self._idle: deque[_Slot] = deque()
        self._slots: dict[int, _Slot] = {}
        self._by_call: dict[int, _Slot] = {}
        # Taken in front and given back behind, so that an id rests as long as it can.
        self._indices = deque(range(1, max(self._plan.pool_size, 2)))
        self._fresh: deque[tuple[float, int]] = deque()
        self._refill = False
        self._terms = Terms({}, 0, ahead=True)
        self._asked = self._terms
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)
        own = self._plan.tier == NAMESPACE
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if own else -1
        self._waiting: deque[_Waiting] = deque()
        self._stages_lost = 0
        self._gate = self._new_gate() if self._plan.stage else None

    def serve(self) -> None:
        """Serve until the control socket closes, then end every call."""
        while True:
            events = self._poll.poll(self._patience())
            for fd, _ in events:
                if fd == self._control.fileno():
                    if not self._take_message():
                        self._end_all()
                        return
                elif fd in self._slots:
                    self._reap(self._slots[fd])
                elif self._gate is not None and self._gate.knows(fd):
                    self._see_to_stage(self._gate, fd)
            self._check_stage()
            self._lower_priorities()
            # One process for each idle moment: calls that arrive while others are forked wait for one fork at most.
            if not events and self._refill and self._gate is None:
                self._fill()

    def _patience(self) -> int | None:
        if self._refill and len(self._idle) < self._plan.prefork and self._gate is None:
            return 0
        left = [self._fresh[0][0] - time.monotonic()] if self._fresh else []
        stage = self._gate.seconds_left() if self._gate is not None else None
        left += [stage] if stage is not None else []
        return max(0, int(min(left) * 1000) + 1) if left else None

    def _fill(self) -> None:
        if len(self._idle) < self._plan.prefork:
            self._idle.append(self._fork(self._terms))
        self._refill = len(self._idle) < self._plan.prefork

    def _take_message(self) -> bool:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, _MESSAGE_LIMIT, 5)
        except ConnectionResetError:
            return False
        if not data:
            return False
        message = json.loads(data)
        try:
            if message["op"] == "run":
                self._run(message, fds)
            elif message["op"] == "kill":
                self._end(message["id"])
            elif message["op"] == "weigh":
                self._weigh(message["ids"])
            elif message["op"] in _SIGNALS and message["id"] in self._by_call:
                self._signal(self._by_call[message["id"]], _SIGNALS[message["op"]])
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _run(self, message: dict[str, Any], fds: list[int]) -> None:
        terms = Terms(message["limits"], message["tasks"], ahead=False)
        self._expect(terms)
        if self._gate is not None and self._gate.ready:
            # Copies: `_take_message` closes what came with the message, and this call has yet to wait.
            self._waiting.append(_Waiting(message["id"], terms, tuple(map(os.dup, fds))))
            self._serve_waiting()
            return
        self._run_in_new(message["id"], terms, fds)

    def _run_in_new(self, number: int, terms: Terms, fds: Sequence[int]) -> None:
        """Hand a call to a process that waits, or to one that is forked now."""
        while True:
            try:
                slot = self._idle.popleft() if self._fits(terms) else self._fork(terms)
            except (OSError, IndexError) as error:
                self._report({"id": number, "failed": f"cannot fork: {error}"})
                return
            if self._hand(slot, number, fds):
                return

    def _hand(self, slot: _Slot, number: int, fds: Sequence[int]) -> bool:
        """Hand a call to a process; say whether that has taken it."""
        try:
            assert slot.channel is not None  # noqa: S101 - an idle slot has its channel
            socket.send_fds(slot.channel, [b"+"], fds)
        except OSError:
            return False
        slot.channel.close()
        slot.channel = None
        slot.call = number
        slot.base = private_bytes(slot.pid)
        self._by_call[slot.call] = slot
        self._fresh.append((time.monotonic() + _LOW_PRIORITY_AFTER, slot.call))
        self._refill = True
        return True

    def _serve_waiting(self) -> None:
        """Hand calls to processes of the stage that wait; order the next one."""
        gate = self._gate
        if gate is None or not gate.ready:
            return
        while self._waiting and self._fits(self._waiting[0].terms):
            if self._hand(self._idle.popleft(), self._waiting[0].number, self._waiting[0].fds):
                self._waiting.popleft().close()
        if gate.birth is None:
            terms = self._waiting[0].terms if self._waiting else self._terms
            if self._waiting or (terms.limits and len(self._idle) < self._plan.prefork):
                gate.order(terms)

    def _new_gate(self) -> Gate | None:
        try:
            return Gate(self._cage, self._indices.popleft(), self._poll, self)
        except (OSError, IndexError):
            return None

    def has(self, process: int) -> bool:
        """Whether a process is one of those that live."""
        return any(slot.pid == process for slot in self._slots.values())

    def take_in(self, birth: Birth, process: int) -> None:
        """Take a process that the stage has forked and that waits for its call."""
        index = self._gate.index if self._gate is not None else 0
        slot = _Slot(process, os.pidfd_open(process), index, birth.terms, birth.channel, lent=True)
        self._slots[slot.pidfd] = slot
        self._poll.register(slot.pidfd, select.POLLIN)
        self._idle.appendleft(slot)

    def _see_to_stage(self, gate: Gate, fd: int) -> None:
        try:
            lives = gate.take(fd)
        except OSError:
            lives = False
        if not lives:
            self._lose_stage(gate)

    def _check_stage(self) -> None:
        gate = self._gate
        if gate is None:
            return
        left = gate.seconds_left()
        try:
            if left is not None and left < 0:
                self._lose_stage(gate)
            else:
                self._serve_waiting()
        except OSError:
            self._lose_stage(gate)

    def _lose_stage(self, gate: Gate) -> None:
        """Begin again with a new stage, unless stages are lost all the time; calls that wait import for themselves."""
        self._stages_lost = 0 if gate.births else self._stages_lost + 1
        gate.close()
        self._indices.append(gate.index)
        # What the stage forked without being asked may hold anything, also an id that a call gets next.
        self._end_strangers()
        self._gate = self._new_gate() if self._stages_lost < _MOST_STAGES_LOST else None
        while self._waiting:
            waiting = self._waiting.popleft()
            self._run_in_new(waiting.number, waiting.terms, waiting.fds)
            waiting.close()

    def _end_strangers(self) -> None:
        """End what a stage has forked and not announced."""
        known = {slot.pid for slot in self._slots.values()}
        for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib is not loaded here
            if name.isdecimal() and int(name) not in known and is_own_child(int(name)):
                os.kill(int(name), signal.SIGKILL)
                os.waitpid(int(name), 0)

    def _end(self, number: int) -> None:
        """End a call, also one that waits."""
        if number in self._by_call:
            self._kill(self._by_call[number])
            return
        for waiting in self._waiting:
            if waiting.number == number:
                self._waiting.remove(waiting)
                waiting.close()
                report = {"id": number, "status": int(signal.SIGKILL), "cpu": 0.0, "memory": 0}
                self._report(report)
                return

    def _fits(self, terms: Terms) -> bool:
        return bool(self._idle) and self._idle[0].terms.limits == terms.limits

    def _expect(self, terms: Terms) -> None:
        """Prepare slots for the limits that were asked for twice in a row."""
        if terms.limits == self._asked.limits != self._terms.limits or not self._terms.limits:
            self._terms = replace(terms, ahead=True)
            while self._idle:
                self._kill(self._idle.popleft())
        self._asked = terms

    def _fork(self, terms: Terms) -> _Slot:
        index = self._indices.popleft()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Only children come into the new namespace; afterwards `setns` goes back, since a process may make just one
        # until it has returned.
        if self._own_pids >= 0:
            syscalls.unshare(syscalls.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                slots.run(self._cage, theirs, index, terms)
        except OSError:
            self._indices.append(index)
            raise
        finally:
            if self._own_pids >= 0:
                syscalls.call("setns", self._own_pids, syscalls.CLONE_NEWPID)
        theirs.close()
        slot = _Slot(pid=pid, pidfd=os.pidfd_open(pid), index=index, terms=terms, channel=ours)
        self._slots[slot.pidfd] = slot
        self._poll.register(slot.pidfd, select.POLLIN)
        return slot

    def _kill(self, slot: _Slot) -> None:
        self._signal(slot, signal.SIGKILL)

    def _signal(self, slot: _Slot, number: signal.Signals) -> None:
        if self._plan.tier == NONE:
            os.killpg(slot.pid, number)
        else:
            os.kill(slot.pid, number)

    def _weigh(self, numbers: Sequence[int]) -> None:
        """Tell how much memory calls have taken since they began."""
        slots = [self._by_call[number] for number in numbers if number in self._by_call]
        weights = {slot.call: max(0, private_bytes(slot.pid) - slot.base) for slot in slots}
        self._report({"weights": weights})

    def _reap(self, slot: _Slot) -> None:
        _, status, usage = os.wait4(slot.pid, 0)
        if self._plan.tier == NONE:
            _end_descendants(slot.pid)
        self._poll.unregister(slot.pidfd)
        os.close(slot.pidfd)
        del self._slots[slot.pidfd]
        if not slot.lent:
            self._indices.append(slot.index)
        if slot.channel is not None:
            slot.channel.close()
            if slot in self._idle:
                self._idle.remove(slot)
        if not slot.call:
            return
        del self._by_call[slot.call]
        report = {
            "id": slot.call,
            "status": status,
            "cpu": usage.ru_utime + usage.ru_stime,
            # ru_maxrss counts KiB.
            "memory": usage.ru_maxrss * 1024,
        }
        self._report(report)

    def _report(self, report: dict[str, Any]) -> None:
        """Report to the host. Where it has ended, the control socket is readable next and `serve` returns."""
        with contextlib.suppress(BrokenPipeError):
            self._control.send(json.dumps(report).encode())

    def _lower_priorities(self) -> None:
        """Let calls that run for long yield to those that begin."""
        now = time.monotonic()
        while self._fresh and self._fresh[0][0] <= now:
            slot = self._by_call.get(self._fresh.popleft()[1])
            if slot is not None:
                _yield_to_others(slot.pid, self._owner(slot))

    def _owner(self, slot: _Slot) -> int:
        if not self._plan.pool_base:
            return os.getuid()
        return slot.index + (0 if self._plan.tier == NAMESPACE else self._plan.pool_base)

    def _end_all(self) -> None:
        if self._gate is not None:
            self._gate.close()
        for slot in list(self._slots.values()):
            self._kill(slot)


def _yield_to_others(process: int, owner: int) -> None:
    """Let all threads of a process run when hardly anybody else wants to. Only their owner may ask for that.

    Not SCHED_IDLE: on a busy host such a process takes seconds to die when it is killed, and keeps its memory so long.
    """
    os.seteuid(owner)
    try:
        for thread in os.listdir(f"/proc/{process}/task"):  # noqa: PTH208 - pathlib is not loaded here
            os.sched_setscheduler(int(thread), os.SCHED_BATCH, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, int(thread), _LEAST_PRIORITY)
    except OSError:
        return  # It ended meanwhile.
    finally:
        os.seteuid(os.getuid())
        # The kernel has forgotten this signal, as it does whenever the effective id changes.
        if os.getpid() == 1:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_descendants(group: int) -> None:
    """End what an unconfined call left in its process group. Confined calls leave nothing."""
    try:
        os.killpg(group, signal.SIGKILL)
        while os.waitpid(-group, 0)[0]:
            pass
    except (ProcessLookupError, ChildProcessError):
        pass
