"""An organization that has as many calls as it may delays no other, over HTTP and gRPC, in one process and in many."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc.aio
import httpx
import pytest

from letta.agent.v1 import agent_service_pb2, agent_service_pb2_grpc
from letta_common.values.ids import uuid7
from tests.callers import SCHEMAS, Api, Gate, calling, environment, events_of, serving, until
from tests.fakes.anthropic_server import AnthropicServer
from tests.fakes.openai_server import OpenAIServer
from tests.servers import RunningServer
from tests.support.databases import Databases


@pytest.fixture(scope="module", params=["server", "up"])
async def server(
    request: pytest.FixtureRequest, databases: Databases, openai: OpenAIServer, anthropic: AnthropicServer
) -> AsyncIterator[RunningServer]:
    variables = {**environment(openai, anthropic), "LETTA_MAX_CALLS_OF_ORGANIZATION": "1"}
    async with serving(databases.clone(SCHEMAS), command=request.param, environment=variables) as running:
        yield running


@pytest.fixture
async def other(server: RunningServer, api: Api) -> AsyncIterator[Api]:
    """A caller of another organization."""
    organization = (await api.http.post("/v1/admin/orgs/", json={"name": f"others {uuid7()}"})).json()
    body = {"name": "bob", "organization_id": organization["id"]}
    user = (await api.http.post("/v1/admin/users/", json=body)).json()
    async with calling(server, {"user_id": user["id"]}) as caller:
        yield caller


@asynccontextmanager
async def streaming(api: Api, agent_id: str) -> AsyncIterator[httpx.Response]:
    """Begin a streamed answer whose model waits, and leave it with the block."""
    path = f"/v1/agents/{agent_id}/messages/stream"
    async with api.http.stream("POST", path, json={"input": "Hi.", "stream_tokens": True}) as response:
        assert response.status_code == 200
        yield response


async def listed(api: Api) -> httpx.Response:
    return await api.http.get("/v1/agents/")


async def refused(api: Api, server: RunningServer) -> None:
    """Expect every call of the organization to be refused, over HTTP and gRPC."""
    path = f"/v1/agents/agent-{uuid7()}/messages"
    for answer in (
        await listed(api),
        await api.http.post(path, json={"input": "Hi."}),
        await api.http.post(f"{path}/stream", json={"input": "Hi."}),
    ):
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert "as many calls and streams at once as it may" in answer.json()["detail"]
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        stub: Any = agent_service_pb2_grpc.AgentServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListAgents(agent_service_pb2.ListAgentsRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_who_has_its_share_is_told_to_come_back_and_others_are_served(
    server: RunningServer, api: Api, other: Api, openai: OpenAIServer
) -> None:
    mine, others = await api.agent(), await other.agent(model="builtin/echo")
    async with Gate(openai) as gate, streaming(api, mine) as response:
        await gate.reached()
        await refused(api, server)
        assert (await other.say(others, "Hi."))["stop_reason"]["stop_reason"] == "end_turn"

        gate.open.set()
        events = [event async for event in events_of(response)]
        assert "end_turn" in [event.get("stop_reason") for event in events]
    assert (await listed(api)).status_code == 200


async def test_who_leaves_a_stream_is_served_again(
    server: RunningServer, api: Api, other: Api, openai: OpenAIServer
) -> None:
    mine = await api.agent()
    async with AsyncExitStack() as left, Gate(openai) as gate:
        await left.enter_async_context(streaming(api, mine))
        await gate.reached()
        await refused(api, server)
        assert (await listed(other)).status_code == 200

        await left.aclose()
        await until(lambda: listed(api), lambda answer: answer.status_code == 200)
