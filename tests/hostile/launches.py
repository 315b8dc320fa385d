"""Starts a session in process, mount, network and IPC namespaces of its own, as a given user."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from hostile import containers
from hostile.victims import SECRET, VARIABLE

from letta_sandbox.local import hosts

ORDINARY_USER = 1500
_ROOT = Path(__file__).resolve().parents[2]


def public_interpreter() -> str:
    """Return a Python that every user can read."""
    python = hosts.find_interpreter()
    readable = all(parent.stat().st_mode & 0o001 for parent in Path(python.library).parents)
    return python.path if readable else "/usr/bin/python3"


def raise_loopback() -> None:
    """Bring up the loopback interface of this network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        fcntl.ioctl(opened, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))


def start(module: str, arguments: list[str], user: int, around: str = "host") -> list[dict[str, Any]]:
    """Run a module there to its end; return its lines. Raises RuntimeError when it fails.

    `around` is "host" or a kind of container.
    """
    python = public_interpreter()
    namespaces = ["--pid", "--fork", "--mount", "--mount-proc", "--net", "--ipc", "--kill-child"]
    if os.getuid() != 0:
        namespaces = ["--user", "--map-current-user", "--keep-caps", *namespaces]
    command = ["unshare", *namespaces, "--", python, "-m", "hostile.launches", str(user), around, module, *arguments]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(import_path()), VARIABLE: SECRET, "LANG": "C.UTF-8"}
    ended = subprocess.run(
        command, cwd=_ROOT, env=environment, input=SECRET.encode(), stdout=subprocess.PIPE, check=False, timeout=900
    )
    lines = [json.loads(line) for line in ended.stdout.decode().splitlines() if line.startswith("{")]
    if ended.returncode:
        raise RuntimeError(f"{module} {arguments} as {user} ended with {ended.returncode} after {len(lines)} attacks")
    return lines


def import_path() -> list[str]:
    """Return where the suite and the service are imported from."""
    members = [
        _ROOT / name
        for name in (
            "tests",
            "services/tools/src",
            "libs/sandbox/src",
            "libs/tool_schemas/src",
            "libs/common/src",
            "libs/protos/src",
        )
    ]
    return [*map(str, members), *[path for path in sys.path if path.endswith("site-packages")]]


def main(user: int, around: str, command: list[str]) -> None:
    """Become the user and run the module."""
    raise_loopback()
    if around != "host":
        containers.enter(around)
    if user != os.getuid():
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    os.execv(sys.executable, [sys.executable, "-m", *command])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
