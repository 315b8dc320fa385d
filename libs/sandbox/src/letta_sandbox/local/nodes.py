"""Node, for tools written in TypeScript: where it is, and the plan of a fork server whose calls become it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from letta_sandbox.cage import runtimes
from letta_sandbox.cage.plan import Plan
from letta_sandbox.calls import Env
from letta_sandbox.local import hosts
from letta_sandbox.local.hosts import Interpreter
from letta_sandbox.local.servers import ServerFailed

ENVIRONMENT = Env(key="node")
OLDEST = 18
_DATA = ("/etc/ld.so.cache", "/usr/share/nodejs")  # Debian keeps parts of Node beside it
_RUNNER = Path(__file__).parents[1] / "inside" / "node_runner.mjs"
_OPTIONS = (
    "--no-warnings",
    "--no-addons",
    "--no-global-search-paths",
    "--v8-pool-size=0",
    f"--max-old-space-size={runtimes.MEMORY}",
    "--input-type=module",
)


class NodeUnavailable(ServerFailed):
    """No Node can run calls in isolation here; the message says why."""


@dataclass(frozen=True, slots=True)
class Node:
    """A Node, and what the kernel needs to start it."""

    path: str
    version: str
    executable: tuple[str, ...]


def find_node(path: str = "") -> Node:
    """Find a Node, by default the first of the search path. Raises NodeUnavailable."""
    found = shutil.which(path or "node")
    if found is None:
        raise NodeUnavailable(f"`{path or 'node'}` is not installed")
    real = os.path.realpath(found)
    try:
        asked = subprocess.run([real, "--version"], capture_output=True, check=True, timeout=20, env={}, text=True)
    except (subprocess.SubprocessError, OSError) as error:
        raise NodeUnavailable(f"{real} is no usable Node: {error}") from error
    version = asked.stdout.strip()
    if int((re.match(r"v(\d+)", version) or ["", "0"])[1]) < OLDEST:
        raise NodeUnavailable(f"{real} is Node {version}; {OLDEST} or newer is needed")
    loader = loader_of(real)
    return Node(real, version, (real, *([os.path.realpath(loader)] if loader else [])))


def loader_of(path: str) -> str:
    """Return the dynamic loader that a program names, or nothing."""
    with Path(path).open("rb") as file:
        found = re.search(rb"(/lib[^\0\s]*/ld[-.][^\0\s]+)\0", file.read(1 << 16))
    return found[1].decode() if found else ""


def make_plan(tier: str, node: Node, python: Interpreter, *, calls: int, prefork: int, place: int) -> Plan:
    """Return the plan of a fork server whose calls become Node and read nothing but it and shared libraries."""
    plan = hosts.make_plan(tier, python, calls=calls, prefork=min(prefork, 1), env=Env(), place=place)
    readable = [node.path, *python.shared, *_DATA]
    return replace(
        plan,
        readable=tuple(path for path in readable if Path(path).exists()),
        hidden=(),
        runtime=node.path,
        runtime_arguments=(*_OPTIONS, "--eval", _RUNNER.read_text()),
        executable=node.executable,
    )
