"""Resource limits of the process of one call."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass

# Address space that costs no memory: mapped libraries, and the stacks that threads reserve.
_ROOM = 1 << 30
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the fork server holds before a call begins: address space and data, in bytes."""

    space: int
    data: int

    @classmethod
    def measure(cls, process: int | str = "self") -> Footprint:
        """Read the footprint of a process."""
        with open(f"/proc/{process}/statm", "rb") as file:  # noqa: PTH123 - pathlib is not loaded in the fork server
            fields = file.read().split()
        # statm counts pages: 0 is the whole address space, 1 what is resident, 2 what of that files back, 5 data.
        return cls(space=int(fields[0]) * _PAGE, data=int(fields[5]) * _PAGE)


def private_bytes(process: int) -> int:
    """Return how much memory a process holds that no file backs; nothing when it has ended."""
    try:
        with open(f"/proc/{process}/statm", "rb") as file:  # noqa: PTH123 - pathlib is not loaded in the fork server
            fields = file.read().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * _PAGE


def apply(limits: Mapping[str, float], footprint: Footprint, *, tasks_elsewhere: int, process: int = 0) -> None:
    """Limit a process, by default the calling one, for good: what it may add to the footprint, and its own tasks."""
    memory = int(limits["memory_bytes"])
    seconds = math.ceil(limits.get("cpu_seconds", limits["timeout_seconds"])) + 1
    _set(process, resource.RLIMIT_DATA, footprint.data + memory)
    _set(process, resource.RLIMIT_AS, footprint.space + int(limits.get("address_bytes", memory + _ROOM)))
    _set(process, resource.RLIMIT_CPU, seconds)
    _set(process, resource.RLIMIT_FSIZE, int(limits["scratch_bytes"]))
    _set(process, resource.RLIMIT_NOFILE, int(limits["open_files"]))
    _set(process, resource.RLIMIT_NPROC, int(limits["processes"]) + tasks_elsewhere)
    # glibc reserves this much for the stack of each thread; a larger limit of the host would use up RLIMIT_AS.
    _set(process, resource.RLIMIT_STACK, 8 << 20)
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        _set(process, kind, 0)


def _set(process: int, kind: int, value: int) -> None:
    _, most = resource.prlimit(process, kind)
    # Without CAP_SYS_RESOURCE nothing may be raised above the hard limit that the host has set.
    if most != resource.RLIM_INFINITY:
        value = min(value, most)
    resource.prlimit(process, kind, (value, value))
