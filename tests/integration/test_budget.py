"""The budget: how many calls and statements a step may cost, whatever the length of the history."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

RPCS, SQL, SQL_PER_RUN = 3, 2, 2
SCREENS = {"create": 4, "retrieve": 2, "list": 2}
"""Statements of what a screen asks for, of agents with the usual tools."""


NEW = 2
"""Messages that are new to the model gateway at each message of a user: the answer before it, and itself."""
MOST_PARSED = 9
HEAD = 4
"""Bytes at most that stand before a message in a request."""


async def test_a_step_costs_no_more_than_it_may_however_long_the_history_is():
    made = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "benchmarks.budget"],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    report = json.loads(made.stdout.strip().splitlines()[-1])
    short, long = report["10"], report["10000"]

    assert short == long, made.stdout
    assert short["rpcs_per_step"] <= RPCS, made.stdout
    assert short["sql_per_step"] <= SQL, made.stdout
    assert short["sql_per_run"] <= SQL_PER_RUN, made.stdout
    tool = short["with_memory_tool"]
    assert tool["rpcs_per_step"] <= RPCS + 1, made.stdout
    assert tool["sql_per_step"] <= SQL + 2, made.stdout
    assert tool["sql_per_run"] <= SQL_PER_RUN, made.stdout
    assert report["screens"] == SCREENS, made.stdout
    assert set(report["vendors"]) == {"openai", "anthropic"}
    for lengths in report["vendors"].values():
        _costs_its_new_messages_alone(lengths, made.stdout)


def _costs_its_new_messages_alone(lengths: dict[str, dict[str, float]], told: str) -> None:
    """Hold what a message costs on its way to a vendor, by the number of messages in context."""
    ten, thousand, many = lengths["10"], lengths["1000"], lengths["10000"]
    for name in ("rpcs", "sql", "sql_per_run", "requests", "parsed", "rendered"):
        assert ten[name] == thousand[name] == many[name], told
    assert (ten["rpcs"], ten["sql"], ten["sql_per_run"], ten["requests"]) == (RPCS, SQL, SQL_PER_RUN, 1), told
    assert 0 < ten["parsed"] <= MOST_PARSED, told
    assert ten["rendered"] == NEW, told
    # The history goes to the model gateway once, as the bytes that it is kept as.
    longer = many["bytes_of_history"] - ten["bytes_of_history"]
    assert many["bytes_to_llm_gateway"] - ten["bytes_to_llm_gateway"] <= longer + HEAD * 10_000, told
