"""Runs every attack through the provider on one tier, as the user that this process is."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hostile.attacks import Attack
from hostile.suite import ATTACKS
from hostile.victims import SECRET, Victims, fill, is_ending, others

from letta_common.egress import AddressGuard
from letta_sandbox.calls import CallEnding, Env, Isolation, Result, SandboxCall
from letta_sandbox.destinations import Destinations, read_destinations
from letta_sandbox.egress import Egress
from letta_sandbox.local.provider import LocalOptions, LocalProvider

BASE = "/var/tmp"
PREFORK = 2  # of each fork server
PATIENCE = 5.0
LONG_PATIENCE = 60.0
EGRESS = Egress(AddressGuard(("127.0.0.1",)), AddressGuard())
LISTED = Destinations(read_destinations(["127.0.0.1:9"]))  # where nobody is
MODULE = "import os\nPID = os.getpid()\n"
CANARY = "def f(a):\n    import json\n    return json.loads(json.dumps({'a': a}))\n"


async def attack_once(provider: LocalProvider, attack: Attack, victims: Victims, calls: Calls) -> Result:
    """Run one attack against the victims."""
    facts = victims.facts()
    arguments = {"facts": facts, **fill(attack.arguments, facts)}
    call = SandboxCall(
        attack.tool,
        "attack",
        json.dumps(arguments),
        environment_variables={"OWN": "1"},
        limits=attack.limits,
        destinations=calls.listed,
    )
    if attack.neighbour:
        return await beside_neighbour(provider, call, calls.env)
    result = await provider.run(call, calls.env)
    return await provider.run(call, calls.env) if attack.twice else result


async def beside_neighbour(provider: LocalProvider, call: SandboxCall, env: Env) -> Result:
    """Run a call while one of another tenant, which holds a secret, runs too."""
    source = "import os, time\ndef f():\n print(os.environ['TOKEN'], flush=True)\n time.sleep(60)\n"
    neighbour = SandboxCall(source, "f", environment_variables={"TOKEN": SECRET})
    task = asyncio.create_task(provider.run(neighbour, replace(env, organization_id="org-other")))
    await asyncio.sleep(0.2)
    result = await provider.run(call, env)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return result


def weakness(attack: Attack, result: Result) -> str:
    """Say why a result shows that the attack got through."""
    if attack.status and result.status not in attack.status:
        return f"ended with {result.status.name}, not {[status.name for status in attack.status]}"
    if attack.accepted is not None and attack.accepted(result):
        return "what it sent was accepted"
    if result.status is CallEnding.SUCCESS and json.loads(result.result).get("hit"):
        return f"it got through: {result.result[:200]}"
    return ""


async def judge(provider: LocalProvider, attack: Attack, tier: Isolation, calls: Calls) -> dict[str, Any]:
    """Run an attack and look at the result, the victims, what is left running, and the next call."""
    victims = Victims(BASE)
    try:
        result = await attack_once(provider, attack, victims, calls)
        problems = [problem for problem in [weakness(attack, result), *victims.damage()] if problem]
        problems += await left_over(victims, provider, tier, calls)
    finally:
        victims.close()
    canary = await provider.run(SandboxCall(CANARY, "f", '{"a": [1, "x"]}', destinations=calls.listed), calls.env)
    if canary.result != '{"a":[1,"x"]}':
        problems.append(f"the next call answered {canary}")
    return {"name": attack.name, "contained": not problems, "status": result.status.name, "problems": problems}


async def left_over(victims: Victims, provider: LocalProvider, tier: Isolation, calls: Calls) -> list[str]:
    """Say what runs beyond the fork servers' own, and what was killed and does not end.

    How long the kernel takes to end what was killed says something of the load of the host alone, so that has its time.
    """
    begun = time.monotonic()
    each = PREFORK + (2 if tier is Isolation.NAMESPACE else 1)
    own = each + provider.warm_servers * (each + bool(calls.env.modules))
    while found := others(os.getpid(), victims.process):
        lives = [pid for pid in found if not is_ending(pid)]
        passed = time.monotonic() - begun
        if len(found) <= own:
            return []
        if len(lives) > own and passed > PATIENCE:
            return [f"still running: {lives}"]
        if passed > LONG_PATIENCE:
            return [f"killed, but there: {sorted(set(found) - set(lives))}"]
        await asyncio.sleep(0.02)
    return []


async def main(tier: Isolation, interpreter: str, kind: str, part: str) -> None:
    """Run the attacks with this text in their name on one tier; one line of JSON each.

    Calls of the kind "listed" may reach a host, which leaves them more system calls; those of the kind "loaded" come
    from a process that has packages loaded.
    """
    with tempfile.TemporaryDirectory(dir=BASE) as directory:
        calls = kind_of_calls(kind, Path(directory))
        egress = EGRESS if calls.listed else None
        provider = LocalProvider(LocalOptions(tiers=(tier,), interpreter=interpreter, prefork=PREFORK, egress=egress))
        report = await provider.probe()
        if report.isolation is not tier:
            raise SystemExit("; ".join(report.missing))
        await warm(provider, calls)
        try:
            for attack in (attack for attack in ATTACKS if part in attack.name):
                sys.stdout.write(json.dumps(await judge(provider, attack, tier, calls)) + "\n")
                sys.stdout.flush()
        finally:
            await provider.close()


@dataclass(frozen=True, slots=True)
class Calls:
    """What the calls of a session may reach and have loaded."""

    listed: Destinations = field(default_factory=Destinations)
    env: Env = field(default_factory=lambda: Env(organization_id="org-own"))


def kind_of_calls(kind: str, directory: Path) -> Calls:
    """Return what calls of a kind have; packages are written into the directory."""
    if kind == "listed":
        return Calls(listed=LISTED)
    if kind == "none":
        return Calls()
    directory.chmod(0o755)
    (directory / "loaded.py").write_text(MODULE)
    (directory / "loaded.py").chmod(0o644)
    return Calls(env=Env(key="loaded", path=str(directory), organization_id="org-own", modules=("loaded",)))


async def warm(provider: LocalProvider, calls: Calls) -> None:
    """Start the second fork server, and wait until it has loaded what it is to load."""
    if not calls.env.modules:
        second = SandboxCall("import pydantic\n" + CANARY, "f", '{"a": 1}', destinations=calls.listed)
        await provider.run(second, calls.env)
        return
    look = SandboxCall("import loaded, os\ndef f(): return loaded.PID != os.getpid()", "f")
    for _ in range(300):
        if (await provider.run(look, calls.env)).result == "true":
            return
        await asyncio.sleep(0.05)
    raise SystemExit("nothing was loaded")


if __name__ == "__main__":
    asyncio.run(main(Isolation[sys.argv[1].upper()], sys.argv[2], sys.argv[3], "".join(sys.argv[4:5])))
