"""Runs every attack through the provider on one tier, as the user that this process is."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from hostile.attacks import Attack
from hostile.suite import ATTACKS
from hostile.victims import SECRET, Victims, fill, others

from letta_tools.domain.execution import Call, Env, Isolation, Result, Status
from letta_tools.providers.local.provider import LocalOptions, LocalProvider

BASE = "/var/tmp"
PREFORK = 2  # of each of the two fork servers
CANARY = "def f(a):\n    import json\n    return json.loads(json.dumps({'a': a}))\n"


async def attack_once(provider: LocalProvider, attack: Attack, victims: Victims) -> Result:
    """Run one attack against the victims."""
    facts = victims.facts()
    arguments = {"facts": facts, **fill(attack.arguments, facts)}
    call = Call(attack.tool, "attack", json.dumps(arguments), environment_variables={"OWN": "1"}, limits=attack.limits)
    if attack.neighbour:
        return await beside_neighbour(provider, call)
    result = await provider.run(call, Env())
    return await provider.run(call, Env()) if attack.twice else result


async def beside_neighbour(provider: LocalProvider, call: Call) -> Result:
    """Run a call while one of another tenant, which holds a secret, runs too."""
    source = "import os, time\ndef f():\n print(os.environ['TOKEN'], flush=True)\n time.sleep(60)\n"
    neighbour = Call(source, "f", environment_variables={"TOKEN": SECRET})
    task = asyncio.create_task(provider.run(neighbour, Env(organization_id="org-other")))
    await asyncio.sleep(0.2)
    result = await provider.run(call, Env(organization_id="org-own"))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return result


def weakness(attack: Attack, result: Result) -> str:
    """Say why a result shows that the attack got through."""
    if attack.status and result.status not in attack.status:
        return f"ended with {result.status.name}, not {[status.name for status in attack.status]}"
    if attack.accepted is not None and attack.accepted(result):
        return "what it sent was accepted"
    if result.status is Status.SUCCESS and json.loads(result.result).get("hit"):
        return f"it got through: {result.result[:200]}"
    return ""


async def judge(provider: LocalProvider, attack: Attack, servers: int) -> dict[str, Any]:
    """Run an attack and look at the result, the victims, what is left running, and the next call."""
    victims = Victims(BASE)
    try:
        result = await attack_once(provider, attack, victims)
        problems = [problem for problem in [weakness(attack, result), *victims.damage()] if problem]
        if left := await left_over(victims, servers):
            problems.append(f"still running: {left}")
    finally:
        victims.close()
    canary = await provider.run(Call(CANARY, "f", '{"a": [1, "x"]}'), Env())
    if canary.result != '{"a":[1,"x"]}':
        problems.append(f"the next call answered {canary}")
    return {"name": attack.name, "contained": not problems, "status": result.status.name, "problems": problems}


async def left_over(victims: Victims, servers: int) -> list[int]:
    """Return processes beyond the fork server's own, once what is ending has ended."""
    deadline = time.monotonic() + 5
    while len(found := others(os.getpid(), victims.process)) > servers + 2 * PREFORK and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return found if len(found) > servers + 2 * PREFORK else []


async def main(tier: Isolation, interpreter: str, part: str) -> None:
    """Run the attacks with this text in their name on one tier; one line of JSON each."""
    provider = LocalProvider(LocalOptions(tiers=(tier,), interpreter=interpreter, prefork=PREFORK))
    report = await provider.probe()
    if report.isolation is not tier:
        raise SystemExit("; ".join(report.missing))
    await provider.run(Call("import pydantic\n" + CANARY, "f", '{"a": 1}'), Env())  # starts the second fork server
    servers = 2 * (2 if tier is Isolation.NAMESPACE else 1)
    try:
        for attack in (attack for attack in ATTACKS if part in attack.name):
            sys.stdout.write(json.dumps(await judge(provider, attack, servers)) + "\n")
            sys.stdout.flush()
    finally:
        await provider.close()


if __name__ == "__main__":
    asyncio.run(main(Isolation[sys.argv[1].upper()], sys.argv[2], "".join(sys.argv[3:4])))
