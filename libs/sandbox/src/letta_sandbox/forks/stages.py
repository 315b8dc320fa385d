"""The second stage: a process without privileges that has a tenant's packages loaded and forks the processes of calls.

Nothing that runs here is trusted, since packages may do anything as they are imported. The fork server lets it fork
only when a call wants a process, mounts for that process what it may not mount itself, and sets its limits.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
from collections.abc import Sequence

from letta_sandbox.cage import namespaces, syscalls
from letta_sandbox.cage.confine import CHANNEL, FORK_FLAGS, Cage, Terms, drop_capabilities
from letta_sandbox.cage.plan import SETUP_FAILED
from letta_sandbox.forks import slots
from letta_sandbox.inside import harness

LISTENER, READY, FORK = b"L", b"R", b"F"

_libc = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock, which a fork must not let go of
_python = ctypes.pythonapi


def run(cage: Cage, channel: socket.socket, index: int, terms: Terms) -> None:
    """Live the life of a stage. Never returns."""
    try:
        slots.keep_only(channel, -1)
        own = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=CHANNEL)
        os.dup2(1, 2)  # what packages print as they are imported belongs to no call
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.setpgid(0, 0)
        namespaces.enter_stage()
        listener = cage.confine_stage(terms, index)
        socket.send_fds(own, [LISTENER], [listener])
        os.close(listener)
        _load(cage.plan.ahead)
        own.send(READY)
        _serve(cage, own)
    except BaseException:
        os._exit(1)
    finally:
        os._exit(0)


def _load(modules: Sequence[str]) -> None:
    gc.enable()
    harness.rehearse(modules)
    gc.collect()
    # A collection in a child would write to the headers of all objects, and so copy every page that it shares.
    gc.freeze()
    gc.disable()


def _serve(cage: Cage, own: socket.socket) -> None:
    identity = os.getuid()
    while True:
        data, fds, _, _ = socket.recv_fds(own, 1, 1)
        if data != FORK or len(fds) != 1:
            return
        if _fork() == 0:
            _become(cage, own, fds[0], identity)
        os.close(fds[0])


def _fork() -> int:
    """Fork a process in namespaces of its own, which is a child of the fork server. Raises OSError."""
    # What `os.fork` does around the call, so that locks and threads of the interpreter are right in the child.
    _python.PyOS_BeforeFork()
    # Not `os.fork`: CLONE_PARENT makes the child one of the fork server's, which collects and reports it.
    result = int(_libc.syscall(ctypes.c_long(syscalls.number("clone")), ctypes.c_long(FORK_FLAGS), 0, 0, 0, 0))
    if result == 0:
        _python.PyOS_AfterFork_Child()
        return 0
    code = ctypes.get_errno()
    _python.PyOS_AfterFork_Parent()
    if result < 0:
        raise OSError(code, os.strerror(code))
    return result


def _become(cage: Cage, own: socket.socket, channel: int, identity: int) -> None:
    """Become the process of a call, which waits for it. Never returns."""
    try:
        own.detach()
        slots.keep_only(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=channel), -1)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)  # so that it and the fork server may open its namespaces
        namespaces.map_self(identity)
        syscalls.call("mount", None, None, None, 0, None)  # asks for what this process gets; done when it returns
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        drop_capabilities()
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.chdir("/tmp")  # noqa: S108 - the call's own
        if cage.program is not None:
            cage.program.load()
        slots.serve()
    except BaseException as error:
        slots.report(error)
    finally:
        os._exit(SETUP_FAILED)
