"""Runs the attacks of MCP servers that are programs against the service, on one tier, as the user of this process."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from typing import Any

from hostile.attacks import Attack
from hostile.stdio_attacks import ATTACKS, CHOSEN
from hostile.stdio_servers import NEIGHBOUR, connection
from hostile.victims import SECRET, Victims, fill, others

from letta_common.clock import SystemClock
from letta_common.egress import AddressGuard
from letta_common.errors import AppError
from letta_common.sealing import Sealer
from letta_sandbox.calls import Isolation, Limits
from letta_sandbox.local.programs import ProgramOptions, Programs
from letta_tools.domain.mcp.connections import MCPConnection
from letta_tools.domain.mcp.oauth import OAuthGrants
from letta_tools.providers.mcp import MCPOptions, StdioOptions
from letta_tools.providers.mcp_client import SDKClient
from tests.fakes.tools.oauth import FakeOAuthStore

BASE = "/var/tmp"
SECONDS = 15.0
MOST_BYTES = 4 << 20
LIMITS = Limits(memory_bytes=256 << 20, scratch_bytes=16 << 20, processes=64, open_files=256)
CALM = "def attack(facts):\n    return {'hit': False}\n"


def service(tier: Isolation, interpreter: str) -> SDKClient:
    """Return the client of MCP servers as the service has it."""
    options = MCPOptions(stdio=StdioOptions(enabled=True, organizations=("*",)), most_bytes=MOST_BYTES)
    programs = Programs(ProgramOptions(tiers=(tier,), interpreter=interpreter, limits=LIMITS))
    return SDKClient(AddressGuard(), options, programs, OAuthGrants(FakeOAuthStore(), Sealer([b""]), SystemClock()))


async def ask(client: SDKClient, server: MCPConnection, facts: dict[str, Any]) -> dict[str, Any]:
    """Have a server run its attack; what the service refuses is no hit."""
    try:
        good, text = await client.call_tool(server, "attack", {"facts": facts}, SECONDS)
    except AppError as error:
        return {"hit": False, "refused": f"{error.reason}: {error.message}"}
    return json.loads(text) if good else {"hit": False, "failed": text}


async def attacked(client: SDKClient, attack: Attack, victims: Victims, interpreter: str) -> list[str]:
    """Run one attack to the end of its session; say what got through."""
    facts = victims.facts()
    facts |= fill(attack.arguments, facts)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    neighbour = connection(interpreter, NEIGHBOUR, "org-neighbour", TOKEN=SECRET)
    before = await ask(client, neighbour, facts) if attack.neighbour else {}
    server = connection(interpreter, attack.tool)
    answer = await ask(client, server, facts)
    if attack.twice:
        server = connection(interpreter, attack.tool, "org-own-two")
        answer = await ask(client, server, facts)
    problems = [f"it got through: {answer}"] if answer.get("hit") else []
    if attack.neighbour and await ask(client, neighbour, facts) != before:
        problems.append("the neighbour was ended or changed")
    for organization in ("org-own", "org-own-two", "org-neighbour"):
        await client.end(organization, f"mcp_server-of-{organization}")
    if (more := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) > 48 << 10:
        problems.append(f"the service grew by {more} KiB")
    return problems


async def judge(client: SDKClient, attack: Attack, interpreter: str) -> dict[str, Any]:
    """Run an attack and look at the answer, the victims, and what is left running."""
    victims = Victims(BASE)
    try:
        problems = [*await attacked(client, attack, victims, interpreter), *victims.damage()]
        if left := await left_over(victims):
            problems.append(f"still running: {left}")
    finally:
        victims.close()
    return {"name": attack.name, "contained": not problems, "status": "-", "problems": problems}


async def left_over(victims: Victims) -> list[int]:
    """Return processes that are still there once what is ending has ended."""
    deadline = time.monotonic() + 5
    while (found := others(os.getpid(), victims.process)) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return found


async def main(tier: Isolation, interpreter: str, part: str) -> None:
    """Run the attacks with this text in their name, or those of the tests; one line of JSON each."""
    client = service(tier, interpreter)
    calm = connection(interpreter, CALM)
    if await ask(client, calm, {}) != {"hit": False}:
        raise SystemExit(str(await ask(client, calm, {})))
    await client.end("org-own", calm.server_id)
    chosen = [each for each in ATTACKS if (each.name in CHOSEN if part == "chosen" else part in each.name)]
    for attack in chosen:
        sys.stdout.write(json.dumps(await judge(client, attack, interpreter)) + "\n")
        sys.stdout.flush()
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(Isolation[sys.argv[1].upper()], sys.argv[2], "".join(sys.argv[3:4])))
