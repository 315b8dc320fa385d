"""The process of one call: waits for its call, confines itself, runs the tool, ends."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys

from letta_sandbox.cage import namespaces, runtimes, syscalls, tunnels
from letta_sandbox.cage.confine import CHANNEL, Cage, Terms
from letta_sandbox.cage.plan import NAMESPACE, SETUP_FAILED
from letta_sandbox.inside import harness


def run(cage: Cage, channel: socket.socket, index: int, terms: Terms) -> None:
    """Live the life of one call's process. Never returns."""
    try:
        keep_only(channel, cage.rules)
        _prepare(cage, index, terms)
        if cage.plan.runtime:
            runtimes.become(cage.plan, terms.limits, *_wait())
        serve()
    except BaseException as error:
        report(error)
    finally:
        os._exit(SETUP_FAILED)


def serve() -> None:
    """Wait for the call and run it. Never returns."""
    request, result = _wait()
    gc.enable()
    harness.serve(request, result)


def keep_only(channel: socket.socket, rules: int) -> None:
    """Close every descriptor but the standard ones, the channel and the Landlock rules."""
    os.dup2(os.dup(channel.detach()), CHANNEL)
    if rules > CHANNEL:
        syscalls.close_range(CHANNEL + 1, rules - 1)
    syscalls.close_range(max(rules, CHANNEL) + 1)


def _prepare(cage: Cage, index: int, terms: Terms) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setpgid(0, 0)  # not a session: the scheduler would treat each as a group of its own, however low its priority
    if cage.plan.tier == NAMESPACE:
        namespaces.enter_call()
    cage.confine(terms, index)
    os.dup2(1, 2)  # what packages print as they are imported belongs to no call
    if terms.ahead and not cage.plan.runtime:
        harness.rehearse(cage.plan.ahead)


def _wait() -> tuple[int, int]:
    """Wait for a call; return where its request comes from and its result goes to."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=CHANNEL)
    data, fds, _, _ = socket.recv_fds(channel, 1, 5)
    if not data:
        os._exit(0)
    channel.close()
    request, result, out, err, *exchange = fds
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    if exchange:
        tunnels.plug(exchange[0])
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    return request, result


def report(error: BaseException) -> None:
    """Write to the call, also to one that comes later, that this process could not be confined."""
    # The reason goes to standard error of the call, which comes with the call itself.
    with contextlib.suppress(OSError):
        _wait()
    os.write(2, f"isolation failed: {error}".encode())
