"""What an attack is. Each is the source of a tool that reports whether it got through."""

# ruff: noqa: E501 - sources of tools are text

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from letta_sandbox.calls import CallEnding, Limits, Result

MIB = 1 << 20

PRELUDE = '''
import ctypes, errno, json, os, socket, struct, sys, time

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def worked(action):
    """Whether something that the system may refuse was not refused."""
    try:
        action()
    except (OSError, ValueError, RuntimeError, MemoryError, OverflowError, KeyError, AttributeError):
        return False
    return True

def syscall(x86, arm, *args):
    """Make a system call by number; return what it returns, or -errno."""
    number = x86 if os.uname().machine == "x86_64" else arm
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return result if result >= 0 else -ctypes.get_errno()

def pids(facts):
    """Return every process id that might be somebody else's."""
    own = os.getpid()
    return [pid for pid in {facts["victim_pid"], facts["service_pid"], os.getppid(), *range(1, 40)} if pid not in (0, own)]

def have_secret(data):
    return b"marker-" in (data if isinstance(data, bytes) else data.encode())
'''


@dataclass(frozen=True, slots=True)
class Attack:
    """A hostile tool: `attack(facts)` returns {"hit": ...}.

    `plain` says how the control runs it: in a "subprocess" that nothing contains, "inside" the service's own process,
    or "concatenated" into a script with its arguments. `status`: what the call must end with, if that is known.
    `neighbour`: a call of another tenant, with a secret, runs meanwhile. `accepted` looks at a successful result, where the attack is on whoever reads it.
    """

    name: str
    source: str
    limits: Limits = field(
        default_factory=lambda: Limits(timeout_seconds=4, memory_bytes=128 * MIB, scratch_bytes=16 * MIB)
    )
    plain: str = "subprocess"
    status: tuple[CallEnding, ...] = ()
    accepted: Callable[[Result], bool] | None = None
    twice: bool = False
    neighbour: bool = False
    arguments: dict[str, object] = field(default_factory=dict)

    @property
    def tool(self) -> str:
        """Return the whole source of the tool."""
        return PRELUDE + self.source
