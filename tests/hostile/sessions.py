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
from hostile.victims import SECRET, Victims, fill, is_ending, others

from letta_common.egress import AddressGuard
from letta_tools.domain.egress import Destinations, read_destinations
from letta_tools.domain.execution import Call, Env, Isolation, Result, Status
from letta_tools.providers.egress_proxy import Egress
from letta_tools.providers.local.provider import LocalOptions, LocalProvider

BASE = "/var/tmp"
PREFORK = 2  # of each fork server
PATIENCE = 5.0
LONG_PATIENCE = 60.0
EGRESS = Egress(AddressGuard(("127.0.0.1",)), AddressGuard())
LISTED = Destinations(read_destinations(["127.0.0.1:9"]))  # where nobody is
CANARY = "def f(a):\n    import json\n    return json.loads(json.dumps({'a': a}))\n"


async def attack_once(provider: LocalProvider, attack: Attack, victims: Victims, listed: Destinations) -> Result:
    """Run one attack against the victims."""
    facts = victims.facts()
    arguments = {"facts": facts, **fill(attack.arguments, facts)}
    call = Call(
        attack.tool,
        "attack",
        json.dumps(arguments),
        environment_variables={"OWN": "1"},
        limits=attack.limits,
        destinations=listed,
    )
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


async def judge(provider: LocalProvider, attack: Attack, tier: Isolation, listed: Destinations) -> dict[str, Any]:
    """Run an attack and look at the result, the victims, what is left running, and the next call."""
    victims = Victims(BASE)
    try:
        result = await attack_once(provider, attack, victims, listed)
        problems = [problem for problem in [weakness(attack, result), *victims.damage()] if problem]
        problems += await left_over(victims, provider, tier)
    finally:
        victims.close()
    canary = await provider.run(Call(CANARY, "f", '{"a": [1, "x"]}', destinations=listed), Env())
    if canary.result != '{"a":[1,"x"]}':
        problems.append(f"the next call answered {canary}")
    return {"name": attack.name, "contained": not problems, "status": result.status.name, "problems": problems}


async def left_over(victims: Victims, provider: LocalProvider, tier: Isolation) -> list[str]:
    """Say what runs beyond the fork servers' own, and what was killed and does not end.

    How long the kernel takes to end what was killed says something of the load of the host alone, so that has its time.
    """
    begun = time.monotonic()
    own = (1 + provider.warm_servers) * (PREFORK + (2 if tier is Isolation.NAMESPACE else 1))
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


async def main(tier: Isolation, interpreter: str, network: str, part: str) -> None:
    """Run the attacks with this text in their name on one tier; one line of JSON each.

    With the network "listed" they are calls that may reach a host, which leaves them more system calls.
    """
    egress, listed = (EGRESS, LISTED) if network == "listed" else (None, Destinations())
    provider = LocalProvider(LocalOptions(tiers=(tier,), interpreter=interpreter, prefork=PREFORK, egress=egress))
    report = await provider.probe()
    if report.isolation is not tier:
        raise SystemExit("; ".join(report.missing))
    second = Call("import pydantic\n" + CANARY, "f", '{"a": 1}', destinations=listed)
    await provider.run(second, Env())  # starts the second fork server
    try:
        for attack in (attack for attack in ATTACKS if part in attack.name):
            sys.stdout.write(json.dumps(await judge(provider, attack, tier, listed)) + "\n")
            sys.stdout.flush()
    finally:
        await provider.close()


if __name__ == "__main__":
    asyncio.run(main(Isolation[sys.argv[1].upper()], sys.argv[2], sys.argv[3], "".join(sys.argv[4:5])))
