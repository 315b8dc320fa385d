"""A replica is killed in the middle of a run; another one on the same database takes the run over."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
import psycopg
import pytest

from tests.callers import IMPATIENT, SCHEMAS, Gate, calling, environment, events_of, orphans, serving, texts, until
from tests.fakes.wire import Say
from tests.support.files import put_file

LEASE_MS = 2_000
INSERT = ("memory_insert", {"label": "human", "new_string": "Likes tea."})
APPEND = '''
import time

def slow_note(text: str) -> str:
    """Take a note slowly.

    Args:
        text: What to note.
    """
    time.sleep(20)
    return text
'''


class Pair:
    """Two replicas on one database, with one home. The first one is there to be killed."""

    def __init__(self, url, variables):
        self.url, self._variables = url, variables
        self._stack, self._firsts = AsyncExitStack(), AsyncExitStack()

    async def start(self):
        await self.start_first()
        second = await self._stack.enter_async_context(serving(self.url, environment=self._variables))
        self.other = await self._stack.enter_async_context(calling(second))

    async def start_first(self):
        self.first = await self._firsts.enter_async_context(serving(self.url, environment=self._variables))
        self.one = await self._firsts.enter_async_context(calling(self.first))

    async def kill_first(self):
        os.kill(self.first.process.pid, signal.SIGKILL)
        await asyncio.to_thread(self.first.process.wait)

    async def mend(self):
        """Have two replicas again."""
        if self.first.process.poll() is not None:
            await self._firsts.aclose()
            await self.start_first()

    async def close(self):
        await self._firsts.aclose()
        await self._stack.aclose()

    def row(self, statement, *parameters):
        with psycopg.connect(self.url) as conn:
            return conn.execute(statement, parameters).fetchone()


@pytest.fixture(scope="module")
async def replicas(databases, openai, tmp_path_factory):
    variables = {
        **IMPATIENT,
        **environment(openai),
        "LETTA_HOME": str(tmp_path_factory.mktemp("home")),
        "LETTA_LLM_GATEWAY_FIRST_TOKEN_SECONDS": "60",
        "LETTA_AGENT_LEASE_MS": str(LEASE_MS),
        "LETTA_AGENT_DISPATCH_SECONDS": "0.2",
    }
    pair = Pair(databases.clone(SCHEMAS), variables)
    await pair.start()
    yield pair
    await pair.close()


@pytest.fixture
async def pair(replicas):
    await replicas.mend()
    return replicas


@asynccontextmanager
async def ignoring_loss(work):
    """Run something whose server dies."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_run_that_waits_for_its_model_goes_on_elsewhere(pair, openai):
    agent_id = await pair.one.agent()
    await pair.one.say(agent_id, "Before.")
    async with Gate(openai) as gate:
        async with ignoring_loss(pair.one.send(agent_id, "In the middle.")):
            await gate.reached()
            run = await pair.one.running(agent_id)
            await pair.kill_first()
        await gate.reached(2)
        gate.open.set()
        ended = await pair.other.ended(run["id"])

    assert ended["status"] == "completed"
    listed = await pair.other.history(agent_id)
    assert texts(listed, "user_message") == ["Before.", "In the middle."]
    assert texts(listed, "assistant_message") == ["You said: Before.", "You said: In the middle."]
    assert len({message["id"] + message["message_type"] for message in listed}) == len(listed)
    await pair.other.say(agent_id, "After.")


async def test_what_the_model_said_before_its_tool_call_is_not_asked_for_again(pair, openai):
    """Kill between the checkpoint and the tool's result: the call is not repeated, its outcome is told as unknown."""
    made = await pair.one.http.post("/v1/tools/", json={"source_code": APPEND})
    assert made.status_code == 200, made.text
    agent_id = await pair.one.agent(tool_ids=[made.json()["id"]])
    openai.say(Say("I note that slowly.", calls=[("slow_note", {"text": "x"})]), "All is noted.")
    async with ignoring_loss(pair.one.send(agent_id, "Note it.")):
        run = await pair.one.running(agent_id)

        async def kept():
            return pair.row("select 1 from agent.run_steps where run_id = %s and output is not null", run["id"])

        await until(kept, bool)
        asked = len(openai.requests)
        await pair.kill_first()
    ended = await pair.other.ended(run["id"])

    assert ended["status"] == "completed", ended
    assert len([r for r in openai.requests[asked:] if r.body and "messages" in r.body]) == 1
    listed = await pair.other.history(agent_id)
    assert texts(listed, "assistant_message") == ["I note that slowly.", "All is noted."]
    [returned] = [message for message in listed if message["message_type"] == "tool_return_message"]
    assert "unknown" in str(returned).lower()
    assert orphans(listed) == []


async def test_a_memory_edit_is_made_once_though_its_step_is_repeated(pair, openai):
    """Kill between the edit and the commit of its step, which a lock in the database holds back."""
    agent_id = await pair.one.agent(memory_blocks=[{"label": "human", "value": ""}])
    openai.say(Say("I note that.", calls=[INSERT]), "Noted.")

    async def value():
        return (await pair.other.http.get(f"/v1/agents/{agent_id}/core-memory/blocks/human")).json()["value"]

    async with Gate(openai) as gate, ignoring_loss(pair.one.send(agent_id, "I like tea.")):
        await gate.reached()
        run = await pair.one.running(agent_id)
        with psycopg.connect(pair.url) as lock:
            lock.execute("lock table memory.messages in share mode")
            gate.open.set()
            await until(value, bool)
            await pair.kill_first()
        ended = await pair.other.ended(run["id"])

    assert ended["status"] == "completed"
    assert (await value()).count("Likes tea.") == 1
    listed = await pair.other.history(agent_id)
    assert texts(listed, "user_message") == ["I like tea."]
    assert texts(listed, "assistant_message") == ["I note that.", "Noted."]
    assert [m["status"] for m in listed if m["message_type"] == "tool_return_message"] == ["success"]
    assert orphans(listed) == []


async def test_files_are_opened_once_though_their_step_is_repeated(pair, openai):
    """Kill between the opening and the commit of its step; what was closed since stays closed."""
    folder = (await pair.one.http.post("/v1/folders/", json={"name": "notes"})).json()
    file_id = put_file(pair.url, folder["id"], "a", "Orion.", org=folder["organization_id"])
    agent_id = await pair.one.agent(folder_ids=[folder["id"]])
    path = f"/v1/agents/{agent_id}/files"
    await pair.one.http.patch(f"{path}/close-all")
    openai.say(Say("I look.", calls=[("open_files", {"file_requests": [{"file_name": "notes/a"}]})]), "Seen.")

    async def opened():
        return (await pair.other.http.get(path)).json()["files"][0]["is_open"]

    async with Gate(openai) as gate, ignoring_loss(pair.one.send(agent_id, "Look.")):
        await gate.reached()
        run = await pair.one.running(agent_id)
        with psycopg.connect(pair.url) as lock:
            lock.execute("lock table memory.messages in share mode")
            gate.open.set()
            await until(opened, bool)
            await pair.kill_first()
            await pair.other.http.patch(f"{path}/{file_id}/close")
        ended = await pair.other.ended(run["id"])

    assert ended["status"] == "completed"
    assert not await opened()
    listed = await pair.other.history(agent_id)
    [returned] = [message for message in listed if message["message_type"] == "tool_return_message"]
    assert (returned["status"], returned["tool_return"]) == ("success", "* Opened notes/a")
    assert orphans(listed) == []


async def test_a_replica_that_was_paused_changes_nothing_when_it_wakes(pair, openai):
    agent_id = await pair.one.agent()
    async with Gate(openai) as gate, ignoring_loss(pair.one.send(agent_id, "Hold.")) as sent:
        await gate.reached()
        run = await pair.one.running(agent_id)
        os.kill(pair.first.process.pid, signal.SIGSTOP)
        await gate.reached(2)
        gate.open.set()
        ended = await pair.other.ended(run["id"])
        os.kill(pair.first.process.pid, signal.SIGCONT)
        answer = await sent

    assert ended["status"] == "completed"
    assert answer.status_code in (200, 409, 503), answer.text
    listed = await pair.other.history(agent_id)
    assert texts(listed, "user_message") == ["Hold."]
    assert texts(listed, "assistant_message") == ["You said: Hold."]
    assert (await pair.one.send(agent_id, "Awake?")).status_code == 200
    assert (await pair.one.run(run["id"]))["status"] == "completed"


async def test_a_stream_is_resumed_at_another_replica_without_a_gap(pair, openai):
    agent_id = await pair.one.agent()
    openai.respond = lambda body: Say("one two three four five six seven eight", pause=0.1)
    run = await pair.one.begin(agent_id, "Talk.", stream_tokens=True)
    seen = []
    with suppress(httpx.TransportError):
        async with pair.one.http.stream("POST", f"/v1/runs/{run['id']}/stream", json={}) as response:
            async for event in events_of(response):
                seen.append(event)
                if len(texts(seen, "assistant_message")) == 2:
                    await pair.kill_first()
                    break
    rest = await pair.other.events(f"/v1/runs/{run['id']}/stream", {})

    numbers = [event["seq_id"] for event in rest if event.get("seq_id")]
    assert numbers == sorted(set(numbers))
    kinds = [event["message_type"] for event in rest]
    assert "run_resumed" in kinds
    after = rest[kinds.index("run_resumed") :]
    assert "".join(texts(after, "assistant_message")) == "one two three four five six seven eight"
    assert (await pair.other.run(run["id"]))["status"] == "completed"
    listed = await pair.other.history(agent_id)
    assert texts(listed, "assistant_message") == ["one two three four five six seven eight"]


async def test_replicas_share_a_conversation_without_stepping_on_each_other(pair, openai):
    agent_id = await pair.one.agent()
    answers = await asyncio.gather(
        *(caller.send(agent_id, f"Number {n}.", on_busy="wait") for n in range(6) for caller in (pair.one, pair.other))
    )
    assert [answer.status_code for answer in answers] == [200] * 12, [answer.text for answer in answers]
    said = texts(await pair.one.history(agent_id), "user_message")
    assert sorted(said) == sorted([f"Number {n}." for n in range(6)] * 2)


async def test_a_run_is_cancelled_through_another_replica(pair, openai):
    agent_id = await pair.one.agent()
    openai.say(Say("word " * 400, pause=0.05))
    run = await pair.one.begin(agent_id, "Talk.", stream_tokens=True)
    await asyncio.wait_for(openai.asked.wait(), 30)
    cancelled = await pair.other.http.post(f"/v1/runs/{run['id']}/cancel")

    assert cancelled.status_code == 200
    assert (await pair.other.ended(run["id"]))["status"] == "cancelled"
    await asyncio.wait_for(openai.gone.wait(), 30)


async def test_a_terminated_replica_finishes_what_it_has_begun(pair, openai):
    agent_id = await pair.one.agent()
    async with Gate(openai) as gate:
        sent = asyncio.create_task(pair.one.send(agent_id, "Last one."))
        await gate.reached()
        pair.first.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        gate.open.set()
        answer = (await asyncio.gather(sent, return_exceptions=True))[0]
        await asyncio.to_thread(pair.first.process.wait, 30)

    assert pair.first.process.returncode == 0
    [run] = await pair.other.runs(agent_id)
    assert (await pair.other.ended(run["id"]))["status"] == "completed"
    assert texts(await pair.other.history(agent_id), "assistant_message") == ["You said: Last one."]
    assert isinstance(answer, httpx.Response), answer
    assert answer.status_code == 200
