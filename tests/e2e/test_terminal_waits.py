"""While an answer is waited for: a spinner, Ctrl-C, calls that are denied, a database or a server that goes away."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions
from tests.callers import OPENAI, PATIENCE, SCHEMAS, Api, calling, environment, serving, until
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.wire import Fault, Json, Reply, Request
from tests.servers import RunningServer, letta_server
from tests.support.terminals import Terminal, talking

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
GATED = "memory_insert"
ASKED = f'CALL {GATED} {{"label": "human", "new_string": "Likes tea."}}'


class Slow(OpenAIServer):
    """A vendor that answers a generation once its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def handle(self, request: Request, out: Reply) -> None:
        if request.method == "POST":
            await self.gate.wait()
        await super().handle(request, out)


@pytest.fixture(scope="module")
async def vendor() -> AsyncIterator[Slow]:
    async with Slow() as running:
        yield running


@pytest.fixture(scope="module")
async def deployment(databases: Any, vendor: Slow) -> AsyncIterator[RunningServer]:
    async with serving(databases.clone(SCHEMAS), environment=environment(vendor)) as running:
        yield running


@pytest.fixture
async def api(deployment: RunningServer) -> AsyncIterator[Api]:
    async with calling(deployment) as caller:
        yield caller


@pytest.fixture
async def agent(api: Api, vendor: Slow) -> str:
    vendor.requests.clear()
    vendor.gone.clear()
    return await api.agent(OPENAI, memory_blocks=[{"label": "human", "value": "Name: Sam."}])


async def asked(vendor: Slow, text: str) -> None:
    """Wait until the model is asked for an answer to a text, and not only for a list of models or for vectors."""

    async def generations() -> list[Request]:
        return [
            request
            for request in vendor.requests
            if request.path.endswith("/chat/completions") and text in str(request.body["messages"][-1])
        ]

    await until(generations, bool)


def heard(vendor: Slow) -> list[Json]:
    """Return the messages of the newest generation."""
    return list(vendor.requests[-1].body["messages"])


async def test_a_spinner_turns_until_the_answer_comes(
    deployment: RunningServer, vendor: Slow, agent: str, tmp_path: Path
):
    vendor.gate.clear()
    with talking(agent, deployment.grpc_address, tmp_path) as talk:
        talk.type("Hello.")
        await asked(vendor, "Hello.")
        for frame in FRAMES[:3]:
            await asyncio.to_thread(talk.until, frame)
        vendor.gate.set()
        await asyncio.to_thread(talk.until, "You said: Hello.")
        await asyncio.to_thread(talk.until, "you>")
        talk.type("/exit")
        await asyncio.to_thread(talk.end)

        shown = talk.screen()
        assert "You said: Hello." in shown
        assert not set(FRAMES) & set(shown)


async def test_ctrl_c_cancels_the_run_and_the_talk_goes_on(
    deployment: RunningServer, vendor: Slow, api: Api, agent: str, tmp_path: Path
):
    vendor.say(Fault("hang"))
    with talking(agent, deployment.grpc_address, tmp_path) as talk:
        talk.type("Think for long.")
        await asked(vendor, "Think for long.")
        talk.child.sendintr()
        await asyncio.to_thread(talk.until, "stopped")
        await asyncio.to_thread(talk.until, "you>")
        await asyncio.wait_for(vendor.gone.wait(), PATIENCE)
        [run] = await until(lambda: runs(api, agent), lambda found: all(run["completed_at"] for run in found))
        assert (run["status"], run["stop_reason"]) == ("cancelled", "cancelled")

        talk.type("And now?")
        # What was stopped was never answered, so a server of this kind gets both messages as one.
        await asyncio.to_thread(talk.until, "You said: Think for long.")
        await asyncio.to_thread(talk.until, "you>")


async def runs(api: Api, agent: str) -> list[Json]:
    return list((await api.http.get("/v1/runs/", params={"agent_id": agent})).json())


@pytest.mark.parametrize("by_option", [True, False], ids=["--deny", "typed"])
async def test_a_denied_call_is_not_made_and_the_model_hears_why(
    deployment: RunningServer, vendor: Slow, api: Api, agent: str, tmp_path: Path, by_option: bool
):
    gate = await api.http.patch(f"/v1/agents/{agent}/tools/approval/{GATED}", json={"requires_approval": True})
    assert gate.status_code == 200
    if by_option:
        options = ["-m", ASKED, "--deny", "it is private", "--address", deployment.grpc_address]
        done = Terminal("chat", agent, *options, home=tmp_path)
        assert "Done." in await asyncio.to_thread(done.end)
        assert done.child.exitstatus == 0
    else:
        with talking(agent, deployment.grpc_address, tmp_path) as talk:
            talk.type(ASKED)
            await asyncio.to_thread(talk.until, "or no and why>")
            talk.type("no it is private")
            await asyncio.to_thread(talk.until, "Done.")

    block = await api.http.get(f"/v1/agents/{agent}/core-memory/blocks/human")
    assert block.json()["value"] == "Name: Sam."
    [returned] = [message["content"] for message in heard(vendor) if message["role"] == "tool"]
    assert "it is private" in returned


async def test_denying_when_nothing_waits_is_told(deployment: RunningServer, agent: str, tmp_path: Path):
    done = Terminal("chat", agent, "--deny", "no", "--address", deployment.grpc_address, home=tmp_path)
    assert "nothing waits for approval" in await asyncio.to_thread(done.end)
    assert done.child.exitstatus == 1


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A Postgres that a test may stop."""
    with EmbeddedPostgres(tmp_path / "pg", PostgresOptions(durable=False, restart=False)) as server:
        yield server


def test_a_database_that_is_away_is_told_from_a_server_that_is(mortal: EmbeddedPostgres, tmp_path: Path):
    variables = {"LETTA_DEFAULT_LLM_HANDLE": "builtin/rules"}
    with letta_server(mortal.dsn(), environment=variables) as server:
        upgraded = Terminal("agents", "create", "--address", server.grpc_address, home=tmp_path)
        agent = upgraded.end().split()[-1]
        with talking(agent, server.grpc_address, tmp_path) as talk:
            mortal.stop()
            for typed in ("Hello.", "/memory", "/agents"):
                talk.type(typed)
                talk.until(f"the server at {server.grpc_address} answers, but its database does not")
                talk.until("you>")
            listed = Terminal("agents", "list", "--address", server.grpc_address, home=tmp_path, columns=200)
            assert "answers, but its database does not" in listed.end()

            server.process.send_signal(signal.SIGTERM)
            server.process.wait(60)
            for typed in ("Hello.", "/memory"):
                talk.type(typed)
                talk.until(f"no server answers at {server.grpc_address}")
                talk.until("you>")
