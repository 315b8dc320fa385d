"""The call that shows at the start whether a tier holds: it tries what must fail."""

from __future__ import annotations

import json
from pathlib import Path

from letta_sandbox.calls import CallEnding, Language, Limits, Result, SandboxCall, Signature

SOURCE = """
import os, socket

def attempt(action):
    try:
        action()
    except (OSError, ImportError):
        return False
    return True

def look(secret, directory):
    return {
        "reads host files": attempt(lambda: open(secret).close()),
        "writes host files": attempt(lambda: open(directory + "/letta-self-test", "w").close()),
        "opens sockets": attempt(lambda: socket.socket().close()),
        "starts processes": attempt(lambda: os.fork() or os._exit(0)),
        "signals others": attempt(lambda: os.kill(os.getppid(), 0)) or attempt(lambda: os.kill(-1, 0)),
        "is root of the host": os.getuid() == 0,
        "has variables of the service": any(name.startswith("LETTA") for name in os.environ),
        "cannot import the standard library": not attempt(lambda: __import__("colorsys")),
        "has foreign descriptors": attempt(lambda: os.fstat(9)),
    }
"""


_NODE_SOURCE = """
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import net from "node:net";

function attempt(action) {
  try {
    action();
  } catch {
    return false;
  }
  return true;
}

function connects() {
  return new Promise((tell) => {
    const forbidden = (error) => tell(!["EPERM", "EACCES"].includes(error.code));
    net.connect(9, "127.0.0.1", () => tell(true)).on("error", forbidden);
  });
}

export async function look(secret, directory) {
  const parent = () => process.kill(process.ppid || -1, 0);
  return {
    "reads host files": attempt(() => fs.readFileSync(secret)),
    "writes host files": attempt(() => fs.writeFileSync(directory + "/letta-self-test", "")),
    "opens sockets": await connects(),
    "starts processes": spawnSync(process.execPath, ["--version"]).error === undefined,
    "signals others": attempt(parent) || attempt(() => process.kill(-1, 0)),
    "is root of the host": process.getuid() === 0,
    "has variables of the service": Object.keys(process.env).some((name) => name.startsWith("LETTA")),
  };
}
"""


def make_call() -> SandboxCall:
    """Return the self-test. It looks at a file that the service can read and a directory that it can see."""
    return SandboxCall(SOURCE, "look", _facts(), limits=Limits(timeout_seconds=10.0))


def make_node_call() -> SandboxCall:
    """Return the self-test of the calls that become Node."""
    names = ("secret", "directory")
    limits, signature = Limits(timeout_seconds=10.0), Signature(names, names)
    return SandboxCall(_NODE_SOURCE, "look", _facts(), limits=limits, language=Language.JAVASCRIPT, signature=signature)


def _facts() -> str:
    # The service can read this file, so a call that cannot is kept from it by isolation and not by its mode.
    own = Path(__file__).resolve()
    return json.dumps({"secret": str(own), "directory": str(own.parent)})


def weakness(result: Result) -> str:
    """Say why a tier does not hold; empty when it does."""
    if result.status is not CallEnding.SUCCESS:
        why = result.failure.message if result.failure else result.status.value
        return f"the self-test ended with {result.status.value}: {why} {result.stderr}".strip()
    broken = [name for name, holds in json.loads(result.result).items() if holds]
    return f"a call {', '.join(broken)}" if broken else ""
