"""A run whose process is killed each time is not retried for ever."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.callers import IMPATIENT, SCHEMAS, Gate, calling, environment, serving, texts

TAKEOVERS = 1


@pytest.fixture
async def deployment(databases, openai, tmp_path):
    """Start processes of one deployment, one after the other."""
    url = databases.clone(SCHEMAS)
    variables = {
        **IMPATIENT,
        **environment(openai),
        "LETTA_HOME": str(tmp_path),
        "LETTA_LLM_GATEWAY_FIRST_TOKEN_SECONDS": "60",
        "LETTA_AGENT_LEASE_MS": "1000",
        "LETTA_AGENT_DISPATCH_SECONDS": "0.1",
        "LETTA_AGENT_RUN_TAKEOVERS": str(TAKEOVERS),
    }

    @asynccontextmanager
    async def process():
        async with serving(url, environment=variables) as server, calling(server) as api:
            yield server, api

    return process


def kill(server):
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()


async def test_a_message_that_kills_each_process_fails_after_a_while(deployment, openai):
    async with AsyncExitStack() as stack, Gate(openai) as gate:
        server, api = await stack.enter_async_context(deployment())
        agent_id = await api.agent()
        run = await api.begin(agent_id, "Kill me.")
        await gate.reached()
        for deaths in range(1, TAKEOVERS + 1):
            await asyncio.to_thread(kill, server)
            server, api = await stack.enter_async_context(deployment())
            await gate.reached(deaths + 1)
        await asyncio.to_thread(kill, server)
        server, api = await stack.enter_async_context(deployment())
        ended = await api.ended(run["id"])
        gate.open.set()

        assert (ended["status"], ended["stop_reason"]) == ("failed", "error")
        error = ended["metadata"]["error"]
        assert (error["error_type"], error["run_id"]) == ("run_abandoned", run["id"])
        assert f"{TAKEOVERS + 1} times" in error["message"]
        assert gate.waiting == TAKEOVERS + 1
        after = await api.say(agent_id, "Still there?")
        assert texts(after["messages"], "assistant_message") == ["You said: Still there?"]
        assert texts(await api.history(agent_id), "user_message") == ["Still there?"]
