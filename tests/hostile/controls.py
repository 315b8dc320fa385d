"""The negative controls: every attack once with nothing that contains it, in namespaces that are thrown away.

Shows that an attack can hit. Nothing here may run outside of the root built by `isolate`: all of the host that is in it
is read-only, its users are mapped to ids of nobody, and it has process ids and a network of its own.
"""

# ruff: noqa: E501 - sources of tools are text

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hostile.attacks import Attack
from hostile.launches import raise_loopback
from hostile.suite import ATTACKS
from hostile.victims import Victims, fill, others

from letta_sandbox.cage import namespaces, syscalls
from letta_sandbox.cage.plan import NAMESPACE, Plan
from letta_sandbox.local import hosts

MARKER = b"RESULT-MARKER"
PATIENCE = 6.0
FLOOD = 40 << 20
BASE = "/tmp"


def isolate() -> None:
    """Go where nothing can be hurt."""
    python = hosts.find_interpreter(sys.executable)
    readable = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", python.library, "/dev/zero", "/dev/full"]
    readable += [path for path in sys.path if Path(path).is_dir()]
    made = [path for path in dict.fromkeys(readable) if Path(path).exists()]
    outermost = [p for p in made if not any(p != other and p.startswith(other + "/") for other in made)]
    namespaces.enter(
        Plan(
            tier=NAMESPACE,
            readable=tuple(outermost),
            hidden=(),
            import_path=(),
            preload_path=(),
            preload=(),
            pool_base=0x6C740000,
            pool_size=1000,
            prefork=0,
        )
    )
    namespaces.mount_scratch(1 << 30, 0, shown=outermost)
    Path(BASE).chmod(0o777)
    raise_loopback()
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)  # as any service that has not changed its ids
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(attack: Attack, victims: Victims) -> str:
    """Run an attack as a careless service would; say how it hit, or nothing."""
    facts = victims.facts()
    ways = {"subprocess": _as_subprocess, "inside": _inside, "concatenated": _concatenated, "annotations": _annotations}
    return ways[attack.plain](attack, facts)


def _as_subprocess(attack: Attack, facts: dict[str, Any]) -> str:
    call = f"import json as _json\nprint('\\n' + {MARKER.decode()!r} + _json.dumps(attack(_json.loads({json.dumps(facts)!r}))))"
    return _execute(attack.tool + call) or (_execute(attack.tool + call) if attack.twice else "")


def _execute(script: str) -> str:
    name = Path(BASE) / "script.py"
    name.write_text(script)
    process = subprocess.Popen(
        [sys.executable, str(name)],
        stdin=0,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        close_fds=False,
        start_new_session=True,
    )
    output = _collect(process)
    if output is None:
        return "it did not end"
    if len(output) >= FLOOD:
        return f"it made the service read {len(output)} bytes"
    if b"late" in output:
        return "it wrote after its result"
    return _believe(output)


def _collect(process: subprocess.Popen[bytes]) -> bytes | None:
    """Read everything, as a careless service does; None when the process does not end."""
    assert process.stdout is not None
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    parts, deadline = [], time.monotonic() + PATIENCE
    while selector.select(max(0.0, deadline - time.monotonic())):
        part = os.read(process.stdout.fileno(), 1 << 20)
        if not part or sum(map(len, parts)) > 5 * FLOOD:
            break
        parts.append(part)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0.1, deadline - time.monotonic()))
    return b"".join(parts) if process.poll() is not None or sum(map(len, parts)) >= FLOOD else None


def _believe(output: bytes) -> str:
    """Read a result as the retired server did: after a constant marker, with nothing checked."""
    _, marker, data = output.partition(MARKER)
    if not marker:
        return ""
    data = data.strip()
    if data.startswith(b"cos"):
        pickle.loads(data.partition(b"\n" + MARKER)[0])
        return ""
    try:
        value = json.loads(data[32:] if data.startswith(b"0" * 32) else data)
    except (RecursionError, json.JSONDecodeError) as error:
        return f"the service failed: {type(error).__name__}" if isinstance(error, RecursionError) else ""
    forged = isinstance(value, dict) and ("forged" in json.dumps(value) or value.get("changes") is not None)
    return f"the service believed {str(value)[:80]}" if forged or value.get("hit") else ""


def _inside(attack: Attack, facts: dict[str, Any]) -> str:
    """Run the tool inside of a stand-in for the service and see whether that lives on, unchanged."""
    answers, answer = os.pipe()
    process = os.fork()
    if process == 0:
        _stand_in(attack, facts, answer)
    os.close(answer)
    with selectors.DefaultSelector() as selector:
        selector.register(answers, selectors.EVENT_READ)
        told = os.read(answers, 100) if selector.select(PATIENCE) else b""
    os.close(answers)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return "" if told == b'{"alive": 1}' else f"the service died, stopped or changed: {told!r}"


def _stand_in(attack: Attack, facts: dict[str, Any], answer: int) -> None:
    write = os.write
    try:
        space: dict[str, Any] = {}
        exec(attack.tool, space)
        json.dumps(space["attack"](facts))
        write(answer, json.dumps({"alive": 1}).encode())
    finally:
        os._exit(1)


def _concatenated(attack: Attack, facts: dict[str, Any]) -> str:
    """Put the arguments into the source, as the retired server did."""
    items = fill(attack.arguments["items"], facts)
    _execute(f"{attack.tool}\nitems = ['{items[0]}']\n")
    return ""


def _annotations(attack: Attack, facts: dict[str, Any]) -> str:
    """Evaluate annotations in the service, as the retired server did."""
    _execute(
        f"{attack.tool}\nfor text in list(attack.__annotations__.values()): eval(text, {{'WHERE': {facts['directory']!r}}})\n"
    )
    return ""


def _try(attack: Attack, answer: int) -> None:
    """Be the service for one attack: run it, look at the victims, tell."""
    victims = Victims(BASE)
    hits = [hit for hit in [run(attack, victims), *victims.damage()] if hit]
    left = others(1, os.getpid(), victims.process)
    hits += [f"still running: {left}"] if left else []
    os.write(answer, json.dumps(hits).encode())
    victims.close()


def control(attack: Attack) -> list[str]:
    """Run one attack with a service of its own; say how it hit."""
    answers, answer = os.pipe()
    service = os.fork()
    if service == 0:
        try:
            _try(attack, answer)
        finally:
            os._exit(0)
    os.close(answer)
    with selectors.DefaultSelector() as selector:
        selector.register(answers, selectors.EVENT_READ)
        told = os.read(answers, 65536) if selector.select(5 * PATIENCE) else b""
    os.close(answers)
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)  # this is the first process of a process namespace
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    hits: list[str] = json.loads(told) if told else ["the service itself was ended"]
    return hits


def main(parts: list[str]) -> None:
    """Run every control with one of these texts in its name; one line of JSON each."""
    isolate()
    if os.getpid() != 1 or Path("/home").exists():
        raise SystemExit("not in a namespace of its own")
    for attack in (attack for attack in ATTACKS if any(part in attack.name for part in parts)):
        hits = control(attack)
        sys.stdout.write(json.dumps({"name": attack.name, "hit": bool(hits), "how": hits}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:] or [""])
