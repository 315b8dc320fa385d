"""The program that shows at the start whether a tier holds programs: it tries what must fail."""

from __future__ import annotations

import os
from pathlib import Path

PROGRAM = """
import json, os, socket, sys

def attempt(action):
    try:
        action()
    except (OSError, ImportError):
        return False
    return True

def look(secret, directory, service):
    return {
        "reads host files": attempt(lambda: open(secret).close()),
        "writes host files": attempt(lambda: open(directory + "/letta-self-test", "w").close()),
        "opens sockets": attempt(lambda: socket.socket().close()),
        "signals the service": os.getppid() != 1 and attempt(lambda: os.kill(service, 0)),
        "is root of the host": os.getuid() == 0,
        "has variables of the service": any(name.startswith("LETTA") for name in os.environ),
        "has foreign descriptors": any(attempt(lambda: os.fstat(number)) for number in range(3, 64)),
        "cannot start a program": os.system(":") != 0,
    }

print(json.dumps(look(**json.loads(sys.stdin.readline()))), flush=True)
"""
"""What a program of our own tries before any other is trusted to be confined. In a process namespace of its own, where
its parent is the first process, the number of the service is nobody's or its own.
"""


def facts() -> dict[str, str | int]:
    """Return what `PROGRAM` is told: a file and a directory of the service, and its process."""
    own = Path(__file__).resolve()
    readable = str(own).startswith("/usr/")
    return {"secret": "/etc/shadow" if readable else str(own), "directory": str(own.parent), "service": os.getpid()}


def judged(found: dict[str, bool]) -> str:
    """Say what a program can do that it must not; empty when it is nothing."""
    broken = [name for name, holds in found.items() if holds]
    return f"a program {', '.join(broken)}" if broken else ""
