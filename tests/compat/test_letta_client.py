"""What users of the SDK do first."""

from __future__ import annotations

import pytest

from letta_client import APIStatusError, NotFoundError, UnprocessableEntityError

ADD = '''
def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: One.
        b: Other.
    """
    return a + b
'''


def said(messages) -> str:
    return " ".join(m.content for m in messages if m.message_type == "assistant_message")


def test_an_agent_is_created_with_its_blocks_and_base_tools(client, agent):
    assert agent.id.startswith("agent-")
    assert {block.label for block in agent.blocks} == {"human", "persona"}
    assert {"memory_insert", "memory_replace", "conversation_search"} <= {tool.name for tool in agent.tools}


def test_a_message_is_answered_and_remembered(client, agent):
    told = client.agents.messages.create(agent.id, messages=[{"role": "user", "content": "My name is Sam."}])

    assert told.stop_reason.stop_reason == "end_turn"
    assert "tool_call_message" in [m.message_type for m in told.messages]
    assert "Sam" in client.agents.blocks.retrieve("human", agent_id=agent.id).value
    asked = client.agents.messages.create(agent.id, input="What is my name?")
    assert "Sam" in said(asked.messages)
    assert asked.usage.step_count >= 1


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_a_message_streams(client, agent):
    with client.agents.messages.stream(
        agent.id, messages=[{"role": "user", "content": "I live in Oslo."}], stream_tokens=True
    ) as stream:
        kinds = [event.message_type for event in stream]

    assert kinds[0] == "ping"
    assert "assistant_message" in kinds
    assert kinds[-2:] == ["stop_reason", "usage_statistics"]


def test_messages_create_can_stream_too(client, agent):
    stream = client.agents.messages.create(agent.id, input="Hello!", streaming=True)

    assert "assistant_message" in [event.message_type for event in stream]


def test_messages_are_listed(client, agent):
    client.agents.messages.create(agent.id, input="I like tea.")

    listed = list(client.agents.messages.list(agent.id, order="asc"))

    assert listed[0].message_type == "system_message"
    assert "user_message" in [m.message_type for m in listed]


def test_agents_page(client):
    made = [client.agents.create(model="builtin/rules", name=f"pages {n}", tags=["paged"]) for n in range(5)]
    found = [found.id for found in client.agents.list(tags=["paged"], limit=2, order="asc")]
    assert [one.id for one in made] == found
    for one in made:
        client.agents.delete(one.id)


def test_labels_of_agents_are_listed(client):
    made = [client.agents.create(model="builtin/rules", tags=["labels-b", f"labels-a{n}"]) for n in range(2)]
    assert client.tags.list(name="LABELS-") == ["labels-a0", "labels-a1", "labels-b"]
    assert client.tags.list(query_text="labels-", order="desc", limit=1) == ["labels-b"]
    assert client.tags.list(name="labels-", order_by="name", after="labels-a0", limit=1) == ["labels-a1"]
    for one in made:
        client.agents.delete(one.id)
    assert client.tags.list(name="labels-") == []


def test_agents_of_a_block_and_of_an_archive_are_listed(client):
    one, two = [client.agents.create(model="builtin/rules", name=f"owner {n}") for n in range(2)]
    block, archive = client.blocks.create(label="shared", value="x"), client.archives.create(name="shared")
    for agent in (one, two):
        client.agents.blocks.attach(block.id, agent_id=agent.id)
        client.agents.archives.attach(archive.id, agent_id=agent.id)
    archives = f"/v1/archives/{archive.id}/agents"

    assert [found.id for found in client.blocks.agents.list(block.id, order="asc")] == [one.id, two.id]
    assert [found["id"] for found in client.get(archives, cast_to=object)] == [two.id, one.id]
    client.agents.blocks.detach(block.id, agent_id=one.id)
    [left] = client.blocks.agents.list(block.id, include=["agent.blocks"])
    assert (left.id, [shown.label for shown in left.blocks]) == (two.id, ["shared"])
    assert list(client.blocks.agents.list(client.blocks.create(label="alone", value="x").id)) == []
    for unknown in ("/v1/blocks/block-{}/agents", "/v1/archives/archive-{}/agents"):
        with pytest.raises(NotFoundError):
            client.get(unknown.format("00000000-0000-4000-8000-000000000000"), cast_to=object)


def test_an_explicit_null_clears(client, agent):
    client.agents.update(agent.id, description="first", tags=["kept"])
    client.agents.update(agent.id, description=None)

    after = client.agents.retrieve(agent.id, include=["agent.tags"])
    assert after.description is None
    assert after.tags == ["kept"]


def test_a_block_lives_its_life(client):
    block = client.blocks.create(label="project", value="letta", limit=5000)
    assert client.blocks.update(block.id, value="letta on grpc").value == "letta on grpc"
    assert block.id in [one.id for one in client.blocks.list(label="project")]
    client.blocks.delete(block.id)
    with pytest.raises(NotFoundError):
        client.blocks.retrieve(block.id)


@pytest.mark.varies  # a passage has its vector at once, or a little later
def test_archival_memory_is_searched(client, agent):
    client.agents.passages.create(agent.id, text="The meeting with Dana is on Tuesday.")
    client.agents.passages.create(agent.id, text="The boiler was serviced in May.")

    found = client.agents.passages.search(agent.id, query="When do I meet Dana?", top_k=1)

    assert "Dana" in found.results[0].content


def test_a_custom_tool_runs_in_isolation(client, agent):
    source = ADD
    tool = client.tools.create(source_code=source)
    client.agents.tools.attach(tool.id, agent_id=agent.id)

    answer = client.agents.messages.create(agent.id, input='CALL add {"a": 2, "b": 40}')

    returned = next(m for m in answer.messages if m.message_type == "tool_return_message")
    assert (returned.status, returned.tool_return) == ("success", "42")
    client.tools.delete(tool.id)


def test_models_are_listed(client):
    assert "builtin/rules" in [model.handle for model in client.models.list()]


def test_runs_are_kept(client, agent):
    client.agents.messages.create(agent.id, input="Hello!")
    run = next(iter(client.runs.list(agent_id=agent.id)))
    assert client.runs.retrieve(run.id).status == "completed"


def test_an_unknown_agent_is_not_found(client):
    with pytest.raises(NotFoundError, match="agent-00000000-0000-4000-8000-0000000000aa"):
        client.agents.retrieve("agent-00000000-0000-4000-8000-0000000000aa")


def test_a_malformed_id_is_unprocessable(client):
    with pytest.raises(UnprocessableEntityError):
        client.agents.retrieve("nonsense")


def test_a_wrong_type_is_unprocessable(client):
    with pytest.raises(UnprocessableEntityError):
        client.agents.create(memory_blocks=5)


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(NotFoundError, match="openai/nope"):
        client.agents.create(model="openai/nope")


def test_the_same_otid_is_the_same_run(client, agent):
    message = {"role": "user", "content": "Hello!", "otid": "11111111-1111-4111-8111-111111111111"}
    first = client.agents.messages.create(agent.id, messages=[message])
    second = client.agents.messages.create(agent.id, messages=[message])
    assert [m.id for m in first.messages] == [m.id for m in second.messages]


def test_an_approval_for_nothing_is_refused(client, agent):
    with pytest.raises(APIStatusError) as raised:
        client.agents.messages.create(
            agent.id,
            messages=[{"type": "approval", "approvals": [{"type": "approval", "tool_call_id": "x", "approve": True}]}],
        )
    assert raised.value.status_code == 400


def test_a_tool_of_an_agent_runs_outside_of_the_loop(client, agent):
    edit = {"label": "persona", "old_string": "brief", "new_string": "terse"}

    result = client.agents.tools.run("memory_replace", agent_id=agent.id, args=edit)

    assert (result.status, result.func_return) == ("success", "I am terse.")
    assert client.agents.blocks.retrieve("persona", agent_id=agent.id).value == "I am terse."
