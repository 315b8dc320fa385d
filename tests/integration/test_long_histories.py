"""Histories as long as nobody should have: answered, within bounds of rows and memory, while others are served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from letta_common.values.ids import uuid7
from tests.callers import SCHEMAS, Api, calling, environment, serving
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.wire import Json
from tests.servers import RunningServer
from tests.support.databases import Databases
from tests.support.histories import write_history

LONG = 100_000
WINDOW = 1_000_000
ROOMY = "openai/roomy"
MEGABYTE = 1 << 20
FEW = 10
OTHERS = 3
"""Messages of others that are answered at least while a long history is worked on."""
ROWS = 50
"""Of messages that a message may read: what is in context, and a few beside."""


@pytest.fixture(scope="module")
async def openai() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as vendor:
        vendor.models.append({"id": "roomy", "object": "model", "context_window": WINDOW})
        yield vendor


@pytest.fixture(scope="module")
def database(databases: Databases) -> str:
    return databases.clone(SCHEMAS)


def peak_of(server: RunningServer) -> int:
    """Return the most memory that a server has taken, in bytes."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    [kilobytes] = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return kilobytes * 1024


def rows_read(database: str) -> int:
    """Return how many rows of messages were read so far by those who have left."""
    with psycopg.connect(database) as conn:
        [(rows,)] = conn.execute(
            "select seq_tup_read + idx_tup_fetch from pg_stat_user_tables where relname = 'messages'"
        ).fetchall()
    return int(rows)


async def other_than(api: Api) -> dict[str, str]:
    """Return the headers of a caller of another organization."""
    organization = (await api.http.post("/v1/admin/orgs/", json={"name": f"others {uuid7()}"})).json()
    body = {"name": "bob", "organization_id": organization["id"]}
    return {"user_id": (await api.http.post("/v1/admin/users/", json=body)).json()["id"]}


def texts_of(body: Json) -> str:
    return "\n".join(str(message["content"]) for message in body["messages"])


async def test_a_history_of_which_little_is_in_context_costs_what_is_in_context(
    database: str, openai: OpenAIServer
) -> None:
    # What is indexed for search is read in the background, and not for a message.
    quiet = {**environment(openai), "LETTA_MEMORY_INDEX_PAUSE_SECONDS": "3600"}
    async with serving(database, environment=quiet) as server, calling(server) as api:
        agent_id = await api.agent()
        await api.say(agent_id, "Hi.")
        write_history(database, agent_id, LONG, in_context=FEW)
        before_memory = peak_of(server)
    before = rows_read(database)  # a server that has left has told what it read
    async with serving(database, environment=quiet) as server, calling(server) as api:
        answer = await api.say(agent_id, "Are you there?")
        after_memory = peak_of(server)

    assert answer["stop_reason"]["stop_reason"] == "end_turn"
    assert "message 99999 of" in texts_of(openai.requests[-1].body)
    assert rows_read(database) - before <= ROWS
    assert after_memory - before_memory < 64 * MEGABYTE


async def test_more_than_a_window_of_a_million_tokens_is_compacted_while_others_are_served(
    database: str, openai: OpenAIServer
) -> None:
    async with serving(database, environment=environment(openai)) as server, calling(server) as api:
        long = await api.agent(ROOMY, context_window_limit=WINDOW)
        async with calling(server, await other_than(api)) as other:
            theirs = await other.agent("builtin/echo")
            await other.say(theirs, "Hi.")
            write_history(database, long, LONG)
            openai.requests.clear()
            openai.say("They talked for long.", "Yes.")
            before = peak_of(server)
            busy, served = asyncio.ensure_future(api.say(long, "Are you there?")), 0
            while not busy.done():
                await other.say(theirs, "Hi.")
                served += not busy.done()
            answer, after = await busy, peak_of(server)

    assert answer["stop_reason"]["stop_reason"] == "end_turn"
    assert served >= OTHERS
    summary, told = map(texts_of, (request.body for request in openai.requests))
    assert "message 0 of" in summary
    assert "message 99999 of" in told
    assert "They talked for long." in told
    assert "message 0 of" not in told
    assert after - before < 512 * MEGABYTE


async def test_a_cache_that_holds_next_to_nothing_costs_time_and_no_answer(database: str, openai: OpenAIServer) -> None:
    variables = {**environment(openai), "LETTA_LLM_GATEWAY_FRAGMENT_CACHE_MEGABYTES": "0.05"}
    async with serving(database, environment=variables) as server, calling(server) as api:
        agents = [await api.agent(ROOMY, context_window_limit=WINDOW) for _ in range(2)]
        texts = [write_history(database, agent_id, 2_000) for agent_id in agents]
        for turn in range(2):
            for agent_id, said in zip(agents, texts, strict=True):
                await api.say(agent_id, f"Turn {turn}.")
                told = texts_of(openai.requests[-1].body)
                assert "\n".join(said) in told
                assert told.endswith(f"Turn {turn}.")
