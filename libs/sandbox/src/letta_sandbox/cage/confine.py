"""Takes every privilege from the process of one call, in the order that works."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from letta_sandbox.cage import landlock, limits, namespaces, runtimes, seccomp, syscalls
from letta_sandbox.cage.plan import DEVICES, LANDLOCK, NAMESPACE, NONE, Plan

CHANNEL = 3
"""Descriptor that a process learns from what it is for."""

FORK_FLAGS = (
    syscalls.CLONE_PARENT | syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | signal.SIGCHLD
)
"""How a stage forks: a child of the fork server, in namespaces of its own."""

# _LINUX_CAPABILITY_VERSION_3: two words of 32 capabilities, each with an effective, permitted and inheritable part.
_CAPABILITY_VERSION = 0x20080522
_LAST_CAPABILITY = 63


@dataclass(frozen=True, slots=True)
class Terms:
    """What one process may use. `tasks` of its user may exist besides; `ahead`: its call is not known yet."""

    limits: Mapping[str, float]
    tasks: int
    ahead: bool


@dataclass(frozen=True, slots=True)
class Cage:
    """What the fork server makes ready once, so that a call needs only a few system calls."""

    plan: Plan
    program: seccomp.FilterProgram | None
    rules: int
    footprint: limits.Footprint
    stage: seccomp.FilterProgram | None = None

    @classmethod
    def make(cls, plan: Plan) -> Cage:
        """Build the filter and the rules of the plan's tier. Raises OSError where the kernel has none."""
        own, programs = plan.tier == NAMESPACE, plan.programs
        rules = -1
        if plan.tier == LANDLOCK:
            executable = plan.executable
            rules = landlock.ruleset(plan.readable, plan.hidden, DEVICES, programs=programs, executable=executable)
        program = None
        if plan.tier != NONE:
            program = seccomp.build(scratch=own, programs=programs, runtime=bool(plan.runtime), network=plan.network)
        footprint = runtimes.FOOTPRINT if plan.runtime else limits.Footprint.measure()
        stage = None
        if plan.stage:
            stage = seccomp.build_stage(network=plan.network, fork_flags=FORK_FLAGS, channel=CHANNEL)
        return cls(plan=plan, program=program, rules=rules, footprint=footprint, stage=stage)

    def confine(self, terms: Terms, index: int) -> None:
        """Confine the calling process for good. `index` is its place in the pool of ids."""
        # Mounting needs privileges, so it comes first; the filter comes last, as it refuses what the others do.
        own_ids = bool(self.plan.pool_base)
        if self.plan.tier == NAMESPACE:
            shown = self.plan.readable if self.plan.programs else ()
            namespaces.mount_scratch(int(terms.limits["scratch_bytes"]), index if own_ids else 0, shown)
        if self.plan.runtime:
            runtimes.hold(self.plan.runtime)
        limits.apply(terms.limits, self.footprint, tasks_elsewhere=0 if self._counted_apart else terms.tasks)
        self._change_ids(index)
        drop_capabilities()
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        # Landlock and seccomp take rules from a process without privileges only once it can gain none.
        if self.rules >= 0:
            landlock.restrict(self.rules)
            os.close(self.rules)
        # The kernel forgets this signal when ids change, so it is asked for after them.
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
        if self.program is not None:
            self.program.load()

    def confine_stage(self, terms: Terms, index: int) -> int:
        """Confine the calling process for good; return what says what it asks about. Raises OSError."""
        if self.stage is None:
            raise OSError(38, "there is no stage")
        namespaces.mount_scratch(int(terms.limits["scratch_bytes"]), index if self.plan.pool_base else 0)
        limits.apply(terms.limits, self.footprint, tasks_elsewhere=0)
        self._change_ids(index)
        drop_capabilities()
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
        return self.stage.listen()

    @property
    def _counted_apart(self) -> bool:
        # RLIMIT_NPROC counts the tasks of a user in its user namespace: own ids or an own namespace count from zero.
        return bool(self.plan.pool_base) or self.plan.tier == NAMESPACE

    def _change_ids(self, index: int) -> None:
        if self.plan.pool_base:
            number = index if self.plan.tier == NAMESPACE else self.plan.pool_base + index
            os.setgroups([])
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
        elif self.plan.tier == NAMESPACE:
            namespaces.leave_user_namespace()


def drop_capabilities() -> None:
    """Give up every capability of the calling process."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0), 8)
    # 24 zero bytes: both words of all three sets.
    syscalls.call("capset", header, ctypes.create_string_buffer(24))


def drop_bounding_set() -> None:
    """Make sure that no program could give a capability back. Needs CAP_SETPCAP; without it there is none to drop."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, capability)
        # EINVAL past the last capability that this kernel knows, EPERM without CAP_SETPCAP.
        except OSError:
            return
