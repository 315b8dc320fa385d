"""The budget: how many calls and statements a step may cost, whatever the length of the history."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

RPCS, SQL, SQL_PER_RUN = 3, 2, 2
SCREENS = {"create": 4, "retrieve": 2, "list": 2}
"""Statements of what a screen asks for, of agents with the usual tools."""


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
