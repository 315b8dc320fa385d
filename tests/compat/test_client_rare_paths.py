"""Paths that no method of the SDKs names, through the unmodified SDK."""

from __future__ import annotations

import pytest

from letta_client import Letta, NotFoundError
from letta_client.types import AgentState

NOWHERE = "00000000-0000-4000-8000-000000000000"


def test_the_core_memory_of_an_agent_is_told(client: Letta, agent: AgentState) -> None:
    memory = client.get(f"/v1/agents/{agent.id}/core-memory", cast_to=object)

    shown = client.agents.retrieve(agent.id, include=["agent.blocks"]).memory
    assert shown is not None
    assert [block["value"] for block in memory["blocks"]] == [block.value for block in shown.blocks]
    assert (memory["agent_type"], memory["file_blocks"], memory["prompt_template"]) == ("letta_v1_agent", [], "")
    with pytest.raises(NotFoundError):
        client.get(f"/v1/agents/agent-{NOWHERE}/core-memory", cast_to=object)


def test_internal_paths_are_those_of_the_resources(client: Letta, agent: AgentState) -> None:
    assert client.get("/v1/_internal_agents/count", cast_to=int) == client.get("/v1/agents/count", cast_to=int)
    path = f"/v1/_internal_agents/{agent.id}/core-memory/blocks/human"
    assert client.patch(path, body={"value": "Sam."}, cast_to=object)["value"] == "Sam."
    assert client.agents.blocks.retrieve("human", agent_id=agent.id).value == "Sam."
    blocks = "/v1/_internal_blocks/"
    made = client.post(blocks, body={"label": "inside", "value": "x"}, cast_to=object)
    assert client.blocks.retrieve(made["id"]).label == "inside"
    assert [each["id"] for each in client.get(f"{blocks}?label=inside", cast_to=object)] == [made["id"]]
    client.agents.blocks.attach(made["id"], agent_id=agent.id)
    assert [each["id"] for each in client.get(f"{blocks}{made['id']}/agents", cast_to=object)] == [agent.id]
    assert client.delete(f"{blocks}{made['id']}", cast_to=object) is None
    with pytest.raises(NotFoundError):
        client.blocks.retrieve(made["id"])


def test_internal_runs_are_runs(client: Letta, agent: AgentState) -> None:
    client.agents.messages.create(agent.id, input="Hello!")

    [run] = client.get(f"/v1/_internal_runs/?agent_id={agent.id}", cast_to=object)

    assert run == client.get(f"/v1/runs/{run['id']}", cast_to=object)
    assert client.get(f"/v1/_internal_runs/?agent_id={agent.id}&active=true", cast_to=object) == []


def test_what_vectors_take_is_counted(client: Letta) -> None:
    def taken() -> float:
        return float(client.get("/v1/embeddings/total_storage_size", cast_to=object))

    before, archive = taken(), client.archives.create(name="vectors")
    client.archives.passages.create(archive.id, text="One.")
    one = taken()
    client.archives.passages.create(archive.id, text="Two.")

    assert one > before
    assert taken() - one == pytest.approx(one - before)
    client.archives.delete(archive.id)
    assert taken() == pytest.approx(before)
