"""The process of one call: waits for its call, confines itself, runs the tool, ends."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys

from letta_tools.providers.local import harness, namespaces, syscalls
from letta_tools.providers.local.confine import Cage
from letta_tools.providers.local.plan import NAMESPACE, SETUP_FAILED

HEADER_LIMIT = 4096

_CHANNEL = 3


def run(cage: Cage, channel: socket.socket, index: int) -> None:
    """Live the life of one call's process. Never returns."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        channel_fd = os.dup(channel.detach())
        os.dup2(channel_fd, _CHANNEL)
        if cage.rules > _CHANNEL:
            syscalls.close_range(_CHANNEL + 1, cage.rules - 1)
        syscalls.close_range(max(cage.rules, _CHANNEL) + 1)
        os.setsid()
        if cage.plan.tier == NAMESPACE:
            namespaces.enter_call()
        _serve(cage, index)
    except BaseException as error:
        os.write(2, f"isolation failed: {error}".encode())
        os._exit(SETUP_FAILED)


def _serve(cage: Cage, index: int) -> None:
    channel = socket.socket(fileno=_CHANNEL)
    data, fds, _, _ = socket.recv_fds(channel, HEADER_LIMIT, 4)
    if not data:
        os._exit(0)
    channel.close()
    header = json.loads(data)
    request, result, out, err = fds
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    cage.confine(header["limits"], index, header["tasks"])
    gc.enable()
    harness.serve(request, result)
