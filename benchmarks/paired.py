"""Two versions of the product side by side: the same messages to each in turn, and the ratios of what they cost.

`python -m benchmarks.paired OLD [NEW]` takes source trees, such as `git archive` makes them; NEW is this one. On a
machine that others use too, absolute figures change by half from minute to minute; ratios of paired blocks do not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.bench import QUIET
from benchmarks.http_client import HttpClient
from benchmarks.scenarios import ECHO, PACED, TOKENS, listen, new_agent, send, vendors
from benchmarks.stacks import Stack, letta

HERE = Path(__file__).parent.parent
WARM = 2
"""Rounds that are not counted."""
BLOCK = 60
"""Messages of a block, shared by the clients of its concurrency; of streamed answers each client hears one."""


class Side:
    """One of the versions."""

    def __init__(self, stack: Stack, concurrency: int, *, streams: bool = False) -> None:
        self._stack = stack
        self._concurrency = concurrency
        self._streams = streams

    async def block(self) -> dict[str, float]:
        """Send a block of messages to new agents; return what one costs, or a token where answers are streamed."""
        async with AsyncExitStack() as ends:  # of before, the server has closed what was idle during the other's block
            clients = [
                await ends.enter_async_context(HttpClient(self._stack.base_url)) for _ in range(self._concurrency)
            ]
            return await (self._heard(clients) if self._streams else self._talked(clients))

    async def _heard(self, clients: list[HttpClient]) -> dict[str, float]:
        pairs = [(client, await new_agent(client, PACED)) for client in clients]
        before, tokens = self._stack.cpu(), TOKENS * len(pairs)
        await asyncio.gather(*(listen(*pair) for pair in pairs))
        used = self._stack.cpu().since(before)
        return {"cpu_ms_python": used.python * 1000 / tokens, "cpu_ms_postgres": used.postgres * 1000 / tokens}

    async def _talked(self, clients: list[HttpClient]) -> dict[str, float]:
        agents = [await new_agent(client, ECHO) for client in clients]
        taken: list[float] = []

        async def talk(client: HttpClient, agent_id: str) -> None:
            for _ in range(BLOCK // len(clients)):
                begun = time.perf_counter()
                await send(client, agent_id)
                taken.append((time.perf_counter() - begun) * 1000)

        before, begun = self._stack.cpu(), time.perf_counter()
        await asyncio.gather(*(talk(*pair) for pair in zip(clients, agents, strict=True)))
        used, seconds = self._stack.cpu().since(before), time.perf_counter() - begun
        return {
            "cpu_ms_python": used.python * 1000 / len(taken),
            "cpu_ms_postgres": used.postgres * 1000 / len(taken),
            "p50_ms": statistics.median(taken),
            "ms_per_message": seconds * 1000 / len(taken),
        }


def paths_of(tree: Path) -> str:
    """Return where Python finds the packages of a source tree, before those that are installed."""
    places = [found for pattern in ("libs/*/src", "services/*/src", "cli/src") for found in sorted(tree.glob(pattern))]
    if not places:
        raise SystemExit(f"{tree} is not a source tree of the product")
    return os.pathsep.join(map(str, places))


async def compare(
    trees: list[Path], command: str, concurrency: int, rounds: int, *, streams: bool = False
) -> dict[str, object]:
    """Run both versions at once and send to one after the other."""
    async with AsyncExitStack() as ends:
        environment = {**QUIET, **(await ends.enter_async_context(vendors()) if streams else {})}
        sides = []
        for tree in trees:
            variables = {**environment, "PYTHONPATH": paths_of(tree)}
            stack = await ends.enter_async_context(letta(command, environment=variables))
            await stack.rest()
            sides.append(Side(stack, concurrency, streams=streams))
        blocks: list[list[dict[str, float]]] = [[], []]
        for number in range(rounds + WARM):
            for index in (0, 1) if number % 2 else (1, 0):
                cost = await sides[index].block()
                if number >= WARM:
                    blocks[index].append(cost)
    old, new = blocks
    return {
        "new_over_old": {
            name: round(statistics.median(b[name] / a[name] for a, b in zip(old, new, strict=True) if a[name]), 3)
            for name in old[0]
        },
        "old_least": {name: round(min(block[name] for block in old), 3) for name in old[0]},
        "new_least": {name: round(min(block[name] for block in new), 3) for name in new[0]},
    }


def main() -> None:
    """Compare and print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="?", default=HERE)
    parser.add_argument("--command", choices=("server", "up"), default="server")
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--streams", action="store_true", help="answers come as tokens, one each 20 ms")
    given = parser.parse_args()
    trees = [given.old.resolve(), given.new.resolve()]
    result = asyncio.run(compare(trees, given.command, given.concurrency, given.rounds, streams=given.streams))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
