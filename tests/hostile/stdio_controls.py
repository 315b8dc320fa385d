"""The negative controls of programs: each attack by a server that a careless service starts, in namespaces that are
thrown away. Shows that an attack can hit.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hostile.attacks import Attack
from hostile.controls import BASE, FLOOD, isolate
from hostile.stdio_attacks import ATTACKS, CHOSEN
from hostile.stdio_servers import NEIGHBOUR, command, messages
from hostile.victims import SECRET, Victims, fill, others

PATIENCE = 4.0
Server = subprocess.Popen[bytes]


def start(source: str, **env: str) -> Server:
    """Start a server as a careless service does: with its environment, descriptors and rights."""
    return subprocess.Popen(
        command(sys.executable, source),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **env},
        close_fds=False,
        start_new_session=True,
    )


def ask(server: Server, facts: dict[str, Any]) -> str:
    """Run the attack once and read all of what comes; say how it hit."""
    assert server.stdin is not None
    assert server.stdout is not None
    with contextlib.suppress(OSError):
        server.stdin.write(messages(facts))
        server.stdin.flush()
    read, deadline, last = 0, time.monotonic() + PATIENCE, b""
    with selectors.DefaultSelector() as selector:
        selector.register(server.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            part = os.read(server.stdout.fileno(), 1 << 20)
            read, last = read + len(part), (last + part)[-65536:]
            if read >= FLOOD:
                return f"it made the service read {read} bytes"
            if not part or (found := _result(last)) is not None:
                return f"it got through: {found}" if part and found.get("hit") else ""
    return "it did not answer"


def _result(text: bytes) -> dict[str, Any] | None:
    for line in text.split(b"\n"):
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
            message = json.loads(line)
            if message["id"] == 2:
                return json.loads(message["result"]["content"][0]["text"])
    return None


def run(attack: Attack, victims: Victims) -> list[str]:
    """Run an attack; say how it hit."""
    facts = victims.facts()
    facts |= fill(attack.arguments, facts)
    neighbour = start(NEIGHBOUR, TOKEN=SECRET) if attack.neighbour else None
    hits = []
    for _ in range(2 if attack.twice else 1):
        server = start(attack.tool)
        hits = [ask(server, facts)]
        _end(server)
    if neighbour is not None:
        if neighbour.poll() is not None:
            hits.append("the neighbour was ended")
        _end(neighbour)
    return [hit for hit in hits if hit]


def _end(server: Server) -> None:
    """End the process that was started, as a careless service does, and nothing else."""
    with contextlib.suppress(ProcessLookupError):
        server.kill()
    server.wait()
    for stream in (server.stdin, server.stdout):
        with contextlib.suppress(OSError):
            stream.close()


def _try(attack: Attack, answer: int) -> None:
    victims = Victims(BASE)
    hits = [*run(attack, victims), *victims.damage()]
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


def main(part: str) -> None:
    """Run the controls of attacks with this text in their name, or of those of the tests; one line of JSON each."""
    isolate()
    if os.getpid() != 1 or Path("/home").exists():
        raise SystemExit("not in a namespace of its own")
    for attack in ATTACKS:
        if attack.name in CHOSEN if part == "chosen" else part in attack.name:
            hits = control(attack)
            sys.stdout.write(json.dumps({"name": attack.name, "hit": bool(hits), "how": hits}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main("".join(sys.argv[1:2]))
