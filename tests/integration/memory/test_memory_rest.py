"""Memory behind the gateway: the bodies that clients of the retired Letta V1 server expect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from letta.common.v1 import message_pb2
from letta.memory.v1 import context_service_pb2 as context_pb2
from letta.memory.v1.block_pb2 import Block
from letta.memory.v1.context_service_pb2_grpc import ContextServiceStub
from letta_client import AsyncLetta
from letta_common.actor import Actor, acting_as
from letta_common.clock import SystemClock
from letta_common.values.ids import new_id
from letta_gateway.http_server import HttpServer
from letta_gateway.settings import GatewaySettings
from letta_gateway.wiring import build as build_gateway
from letta_memory.settings import MemorySettings
from letta_memory.wiring import build
from letta_rpc.boundary import Boundary
from letta_rpc.client import bare_channel, connect
from letta_rpc.server import Server
from letta_rpc.service import Deps
from tests.support.rpc import DEFAULT_ORGANIZATION, DEFAULT_USER, Identities

BLOCK_KEYS = {
    "value", "limit", "project_id", "template_name", "is_template", "template_id", "base_template_id",
    "deployment_id", "entity_id", "preserve_on_migration", "label", "read_only", "description", "metadata", "hidden",
    "id", "created_by_id", "last_updated_by_id", "tags",
}  # fmt: skip
PASSAGE_KEYS = {
    "created_by_id", "last_updated_by_id", "created_at", "updated_at", "is_deleted", "organization_id", "archive_id",
    "source_id", "file_id", "file_name", "metadata", "tags", "id", "text", "embedding", "embedding_config",
}  # fmt: skip
ARCHIVE_KEYS = {
    "created_by_id", "last_updated_by_id", "created_at", "updated_at", "name", "description", "organization_id",
    "vector_db_provider", "embedding_config", "metadata", "id",
}  # fmt: skip
MESSAGE_KEYS = {"id", "date", "name", "message_type", "otid", "sender_id", "step_id", "is_err", "seq_id", "run_id"}


class Rest:
    """The gateway over HTTP, and the calls that the agent service makes."""

    def __init__(self, http: httpx.AsyncClient, contexts: ContextServiceStub) -> None:
        self.http = http
        self.contexts = contexts

    async def agent(self, *more: message_pb2.Message) -> str:
        """Make the memory of an agent with one block, two messages, and more."""
        agent_id = new_id("agent")
        messages = [message(1, "You are Ada.", ""), message(2, "hi", "otid-1"), *more]
        request = context_pb2.ProvisionAgentRequest(
            agent_id=agent_id, agent_name="Ada", new_blocks=[Block(label="human", value="Bob")], messages=messages
        )
        await self.contexts.ProvisionAgent(request, timeout=10)
        return agent_id


def message(role: Any, text: str, otid: str) -> message_pb2.Message:
    part = message_pb2.ContentPart(text=message_pb2.TextContent(text=text))
    made = message_pb2.Message(id=new_id("message"), role=role, parts=[part], otid=otid)
    made.created_at.FromDatetime(datetime(2026, 11, 22, 16, 9, 20, 5, tzinfo=UTC))
    return made


@pytest.fixture
async def rest(database_url: str) -> AsyncIterator[Rest]:
    """Run memory and the gateway over the network, as the default user."""
    identities = Identities()
    settings = MemorySettings(
        bind="127.0.0.1:0", database_url=SecretStr(database_url), cluster_secret=SecretStr("x" * 32), dev_mode=True
    )
    boundary = Boundary(identities.verifier, identities, secret=settings.secret(), clock=SystemClock(), dev_mode=True)
    server = Server([await build(settings, Deps({}))], settings, boundary)
    await server.start()
    front = GatewaySettings(bind="127.0.0.1:0", dev_mode=True, drain_seconds=1.0, peers=("memory",))
    outside, inside = (
        bare_channel(f"127.0.0.1:{server.port}", front),
        connect(f"127.0.0.1:{server.port}", settings, caller="agent"),
    )
    gateway = await build_gateway(front, Deps({"memory": outside}))
    http = HttpServer(gateway.app, front)
    await gateway.start()
    await http.start()
    await gateway.ready()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http.port}", timeout=20) as client:
            with acting_as(identities.sign(Actor(DEFAULT_ORGANIZATION, DEFAULT_USER))):
                yield Rest(client, ContextServiceStub(inside))
    finally:
        await http.stop()
        await gateway.close()
        await outside.close()
        await inside.close()
        await server.stop(notice=0)


async def test_a_block_lives_its_life(rest: Rest) -> None:
    made = await rest.http.post(
        "/v1/blocks/", json={"label": "project", "value": "Orion.", "description": "what we do", "limit": 5000}
    )
    assert (made.status_code, set(made.json())) == (200, BLOCK_KEYS), made.text
    block = made.json()
    assert (
        block["metadata"],
        block["tags"],
        block["hidden"],
        block["is_template"],
        block["preserve_on_migration"],
    ) == ({}, [], None, False, False)
    path = f"/v1/blocks/{block['id']}"
    changed = await rest.http.patch(path, json={"value": "Orion 2.", "metadata": {"big": 9007199254740993}})
    assert tuple(changed.json()[key] for key in ("value", "description", "limit")) == ("Orion 2.", "what we do", 5000)
    assert '"big":9007199254740993' in changed.text.replace(" ", "")
    assert (await rest.http.patch(path, json={"description": None})).json()["description"] is None
    listed = await rest.http.get("/v1/blocks/", params={"label": "project", "limit": 2})
    assert [block["id"]] == [found["id"] for found in listed.json()]
    assert (await rest.http.get("/v1/blocks/count", params={"label": "project"})).json() == 1
    deleted = await rest.http.delete(path)
    assert (deleted.status_code, deleted.json()) == (200, None)
    missing = await rest.http.get(path)
    assert (404, {"detail": f"Block with id '{block['id']}' not found"}) == (missing.status_code, missing.json())


async def test_what_a_block_needs(rest: Rest) -> None:
    assert (await rest.http.post("/v1/blocks/", json={"value": "x"})).status_code == 422
    assert (await rest.http.post("/v1/blocks/", json={"label": "x"})).status_code == 422
    assert (await rest.http.get("/v1/blocks/nope")).status_code == 422


async def test_the_blocks_of_an_agent(rest: Rest) -> None:
    agent = await rest.agent()
    path = f"/v1/agents/{agent}/core-memory/blocks"
    assert [block["label"] for block in (await rest.http.get(path)).json()] == ["human"]
    changed = await rest.http.patch(f"{path}/human", json={"value": "Robert"})
    assert (changed.status_code, set(changed.json()), changed.json()["value"]) == (200, BLOCK_KEYS, "Robert")
    missing = await rest.http.get(f"{path}/nolabel")
    assert {"detail": f"No block with label 'nolabel' found for agent '{agent}'"} == missing.json()


async def test_archives(rest: Rest) -> None:
    made = await rest.http.post("/v1/archives/", json={"name": "facts", "description": "shared"})
    assert (made.status_code, set(made.json())) == (200, ARCHIVE_KEYS), made.text
    archive = made.json()
    assert (
        archive["vector_db_provider"],
        archive["metadata"],
        archive["organization_id"],
    ) == ("native", None, DEFAULT_ORGANIZATION)
    path = f"/v1/archives/{archive['id']}"
    assert (await rest.http.patch(path, json={"description": "shared 2"})).json()["description"] == "shared 2"
    batch = await rest.http.post(f"{path}/passages/batch", json={"passages": [{"text": "one"}, {"text": "two"}]})
    assert [passage["text"] for passage in batch.json()] == ["one", "two"]
    assert set(batch.json()[0]) == PASSAGE_KEYS
    assert tuple(batch.json()[0][key] for key in ("tags", "metadata", "file_id", "is_deleted")) == (
        None,
        {},
        None,
        False,
    )
    single = await rest.http.post(f"{path}/passages", json={"text": "three", "tags": ["t"], "metadata": {"a": 1}})
    assert (single.json()["tags"], single.json()["metadata"]) == (["t"], {"a": 1})
    gone = await rest.http.delete(f"{path}/passages/{single.json()['id']}")
    assert (gone.status_code, gone.content) == (204, b"")

    agent = await rest.agent()
    attached = await rest.http.patch(f"/v1/agents/{agent}/archives/attach/{archive['id']}")
    assert (attached.status_code, attached.json()) == (200, None)
    assert len((await rest.http.get("/v1/archives/", params={"agent_id": agent})).json()) == 1
    other = (await rest.http.post("/v1/archives/", json={"name": "second"})).json()["id"]
    assert (await rest.http.patch(f"/v1/agents/{agent}/archives/attach/{other}")).status_code == 409
    assert (await rest.http.patch(f"/v1/agents/{agent}/archives/detach/{archive['id']}")).status_code == 200
    assert (await rest.http.delete(path)).status_code == 204


async def test_archival_memory(rest: Rest) -> None:
    agent = await rest.agent()
    path = f"/v1/agents/{agent}/archival-memory"
    body = {"text": "Bob grew up in Lyon.", "tags": ["bio"], "created_at": "2020-01-02T03:04:05Z"}
    made = await rest.http.post(path, json=body)
    assert (made.status_code, set(made.json()[0])) == (200, PASSAGE_KEYS), made.text
    assert "2020-01-02T03:04:05" in made.json()[0]["created_at"]
    assert (await rest.http.get(path)).json()[0]["tags"] == ["bio"]
    found = await rest.http.get(
        f"{path}/search", params={"query": "Lyon", "tags": ["bio", "x"], "tag_match_mode": "any"}
    )
    assert (1, {"id", "timestamp", "content", "tags"}) == (found.json()["count"], set(found.json()["results"][0]))
    every = await rest.http.get(
        f"{path}/search", params={"query": "Lyon", "tags": ["bio", "x"], "tag_match_mode": "all"}
    )
    assert every.json() == {"results": [], "count": 0}
    search = await rest.http.post("/v1/passages/search", json={"agent_id": agent, "query": "Lyon"})
    assert [{"passage", "score", "metadata"}] == [set(result) for result in search.json()]
    memory_id = made.json()[0]["id"]
    gone = await rest.http.delete(f"{path}/{memory_id}")
    assert (200, {"message": f"Memory id={memory_id} successfully deleted"}) == (gone.status_code, gone.json())


async def test_messages(rest: Rest) -> None:
    agent = await rest.agent()
    listed = (await rest.http.get(f"/v1/agents/{agent}/messages", params={"limit": 6})).json()
    assert [shown["message_type"] for shown in listed] == ["system_message", "user_message"]
    assert MESSAGE_KEYS | {"content"} == set(listed[1])
    assert tuple(listed[1][key] for key in ("content", "otid", "date", "run_id")) == (
        "hi",
        "otid-1",
        "2026-11-22T16:09:20+00:00",
        None,
    )
    assert listed[0]["otid"] is None
    only = await rest.http.get(
        f"/v1/agents/{agent}/messages", params={"include_return_message_types": ["user_message", "tool_call_message"]}
    )
    assert [shown["content"] for shown in only.json()] == ["hi"]
    assert [listed[1]] == (await rest.http.get(f"/v1/messages/{listed[1]['id']}")).json()
    newest = await rest.http.get("/v1/conversations/default/messages", params={"agent_id": agent})
    assert listed[::-1] == newest.json()
    found = (await rest.http.post("/v1/messages/search", json={"query": "hi", "agent_id": agent})).json()
    assert {"message_type", "content", "agent_id", "conversation_id", "message_id", "created_at"} == set(found[0])
    assert (await rest.http.get(f"/v1/agents/{new_id('agent')}/messages")).status_code == 404
    assert (await rest.http.get(f"/v1/runs/{new_id('run')}/messages")).json() == []


async def test_archives_are_made_in_older_words(rest: Rest) -> None:
    told = {"handle": "test/old", "embedding_dim": 3, "embedding_endpoint_type": "test", "embedding_model": "old"}
    made = await rest.http.post("/v1/archives/", json={"name": "old", "embedding_config": told})
    both = await rest.http.post("/v1/archives/", json={"name": "b", "embedding_config": told, "embedding": "test/new"})

    assert (made.status_code, made.json()["embedding_config"]["handle"]) == (200, "test/old")
    assert both.json()["embedding_config"]["handle"] == "test/new"


async def test_messages_are_listed_in_older_words(rest: Rest) -> None:
    call = message(3, "", "")
    call.parts[0].tool_call.CopyFrom(message_pb2.ToolCallContent(id="c", name="say", input='{"words": "hello"}'))
    path = f"/v1/agents/{await rest.agent(call)}/messages"
    tool = {"assistant_message_tool_name": "say", "assistant_message_tool_kwarg": "words"}
    said = (await rest.http.get(path, params=tool)).json()[-1]
    called = (await rest.http.get(path, params={**tool, "use_assistant_message": "false"})).json()[-1]

    assert (said["message_type"], said["content"]) == ("assistant_message", "hello")
    assert (called["message_type"], called["tool_call"]["name"]) == ("tool_call_message", "say")


async def test_the_client_pages_and_parses(rest: Rest) -> None:
    agent = await rest.agent()
    async with AsyncLetta(base_url=str(rest.http.base_url), api_key="unused", max_retries=0) as client:
        for number in range(5):
            await client.agents.passages.create(agent, text=f"fact {number}", tags=["n"])
        assert len(await client.agents.passages.list(agent)) == 5
        result = await client.agents.passages.search(agent, query="fact", tags=["n"], top_k=3)
        assert (result.count, len(result.results)) == (3, 3)
        ids = [(await client.blocks.create(label="paged", value=str(number))).id for number in range(5)]
        assert ids == [block.id async for block in client.blocks.list(label="paged", limit=2)]
        shown = [found async for found in client.agents.messages.list(agent, order="asc", limit=1)]
        assert [found.message_type for found in shown] == ["system_message", "user_message"]
        archive = await client.archives.create(name="client", description="d")
        many = await client.archives.passages.create_many(archive.id, passages=[{"text": "a"}, {"text": "b"}])
        assert [passage.text for passage in many] == ["a", "b"]
        hits = await client.passages.search(query="a", archive_id=archive.id)
        assert hits
        found_messages = await client.messages.search(query="hi", agent_id=agent)
        assert found_messages[0].content == "hi"
