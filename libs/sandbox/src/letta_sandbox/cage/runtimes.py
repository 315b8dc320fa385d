"""A call that another runtime runs: its confined process becomes that program, once, and nothing else ever after."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Mapping, Sequence
from typing import NoReturn

from letta_sandbox.cage import syscalls
from letta_sandbox.cage.limits import Footprint
from letta_sandbox.cage.plan import RUNTIME_PLACE, Plan

REQUEST, RESULT = 3, 4
"""Descriptors that the runtime finds its call in and writes its frame to."""
FOOTPRINT = Footprint(space=64 << 30, data=64 << 20)
"""What the runtime takes for itself. It reserves far more address space than it uses; its data is what counts."""
MEMORY = "{memory}"
"""Stands in the arguments for the memory limit of the call, in MiB."""
# A confined runtime cannot read the host's OpenSSL configuration, and the filter refuses io_uring.
_ENVIRONMENT = (b"PATH=/usr/bin:/bin", b"HOME=/tmp", b"LANG=C.UTF-8", b"OPENSSL_CONF=/dev/null", b"UV_USE_IO_URING=0")
_AT_EMPTY_PATH = 0x1000


def hold(runtime: str) -> None:
    """Open the runtime where no call can open anything, before limits and rules hold.

    Executing closes the descriptor, and the limit of open files keeps it from being made again: no second program.
    """
    file = os.open(runtime, os.O_PATH | os.O_CLOEXEC)
    fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, RUNTIME_PLACE)
    os.close(file)


def become(plan: Plan, limits: Mapping[str, float], request: int, result: int) -> NoReturn:
    """Replace the calling process. Raises OSError when that cannot be."""
    # Out of the way first: one of them may have the number that the other is to get.
    kept = [fcntl.fcntl(file, fcntl.F_DUPFD, 10) for file in (request, result)]
    for file, place in zip(kept, (REQUEST, RESULT), strict=True):
        os.dup2(file, place)
        os.close(file)
    syscalls.close_range(RESULT + 1, RUNTIME_PLACE - 1)
    memory = str(max(8, int(limits["memory_bytes"]) >> 20))
    arguments = [plan.runtime, *(text.replace(MEMORY, memory) for text in plan.runtime_arguments)]
    argv, names = _strings([text.encode() for text in arguments]), _strings(_ENVIRONMENT)
    syscalls.call("execveat", RUNTIME_PLACE, b"\0", ctypes.addressof(argv), ctypes.addressof(names), _AT_EMPTY_PATH)
    raise OSError(f"{plan.runtime} did not begin")


def _strings(texts: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(texts) + 1))(*texts, None)
