"""Resource limits of the process of one call."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass

_ROOM = 1 << 30
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the fork server holds before a call begins: address space and data, in bytes."""

    space: int
    data: int

    @classmethod
    def measure(cls) -> Footprint:
        """Read the footprint of this process."""
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - pathlib is not loaded in the fork server
            fields = file.read().split()
        return cls(space=int(fields[0]) * _PAGE, data=int(fields[5]) * _PAGE)


def apply(limits: Mapping[str, float], footprint: Footprint, *, tasks_elsewhere: int) -> None:
    """Limit the calling process, for good: what it may add to the footprint, and its own tasks."""
    memory = int(limits["memory_bytes"])
    seconds = math.ceil(limits.get("cpu_seconds", limits["timeout_seconds"])) + 1
    _set(resource.RLIMIT_DATA, footprint.data + memory)
    _set(resource.RLIMIT_AS, footprint.space + int(limits.get("address_bytes", memory + _ROOM)))
    _set(resource.RLIMIT_CPU, seconds)
    _set(resource.RLIMIT_FSIZE, int(limits["scratch_bytes"]))
    _set(resource.RLIMIT_NOFILE, int(limits["open_files"]))
    _set(resource.RLIMIT_NPROC, int(limits["processes"]) + tasks_elsewhere)
    _set(resource.RLIMIT_STACK, 8 << 20)
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        _set(kind, 0)


def _set(kind: int, value: int) -> None:
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY:
        value = min(value, most)
    resource.setrlimit(kind, (value, value))
