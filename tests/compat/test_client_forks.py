"""Forks of conversations through the unmodified SDK: what they begin with, and that both go on alone."""

from __future__ import annotations

import pytest

from letta_client import NotFoundError

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def tell(client, conversation_id, text):
    client.conversations.messages.create(conversation_id, input=text, streaming=False)


def said(client, conversation_id, **query):
    found = client.conversations.messages.list(conversation_id, order="asc", limit=100, **query)
    return [message.content for message in found if message.message_type == "user_message"]


def context_of(client, conversation_id):
    """Return how many messages the next one is sent with."""
    return client.conversations.messages.compact(conversation_id).num_messages_before


def test_a_fork_begins_with_the_context_and_both_go_on_alone(client, agent):
    made = client.conversations.create(agent_id=agent.id, summary="Of tea.", model="builtin/echo")
    for text in ("One.", "Two."):
        tell(client, made.id, text)
    fork = client.conversations.fork(made.id)
    assert (fork.agent_id, fork.summary, fork.model) == (agent.id, "Of tea.", "builtin/echo")
    assert said(client, fork.id) == ["One.", "Two."]

    tell(client, fork.id, "Only here.")
    tell(client, made.id, "Only there.")

    assert said(client, fork.id) == ["One.", "Two.", "Only here."]
    assert said(client, made.id) == ["One.", "Two.", "Only there."]
    ids = [{m.id for m in client.conversations.messages.list(one, limit=100)} for one in (made.id, fork.id)]
    assert not ids[0] & ids[1]
    assert (context_of(client, fork.id), context_of(client, made.id)) == (7, 7)


def test_the_messages_of_an_agent_are_those_of_all_its_conversations(client, agent):
    client.agents.messages.create(agent.id, input="At first.")
    made = client.conversations.create(agent_id=agent.id)
    tell(client, made.id, "Apart.")
    client.agents.messages.create(agent.id, input="At last.")
    fork = client.conversations.fork(made.id)
    tell(client, fork.id, "Forked.")

    def told(**query):
        found = client.agents.messages.list(agent.id, order="asc", **query)
        return [m.content for m in found if m.message_type == "user_message"]

    assert told(limit=3) == ["At first.", "Apart.", "At last.", "Forked."]
    assert told(conversation_id="default") == ["At first.", "At last."]
    assert told(conversation_id=made.id) == ["Apart."]
    [apart] = [m.id for m in client.conversations.messages.list(made.id, limit=50) if m.message_type == "user_message"]
    assert told(after=apart) == ["At last.", "Forked."]


def test_the_default_thread_is_forked_up_to_a_message(client, agent):
    for text in ("One.", "Two.", "Three."):
        client.agents.messages.create(agent.id, input=text)
    thread = list(client.agents.messages.list(agent.id, order="asc", limit=100))
    [second] = [m.id for m in thread if m.message_type == "user_message" and m.content == "Two."]
    fork = client.conversations.fork("default", agent_id=agent.id, message_id=second)
    assert said(client, fork.id) == ["One.", "Two."]
    tell(client, fork.id, "And?")
    assert said(client, fork.id) == ["One.", "Two.", "And?"]
    with pytest.raises(NotFoundError):
        client.conversations.fork("default", agent_id=agent.id, message_id=f"message-{UNKNOWN}")
    assert [made.id for made in client.conversations.list(agent_id=agent.id)] == [fork.id]


def test_a_fork_has_the_summary_and_blocks_of_its_own(client, agent):
    body = {"isolated_block_labels": ["human"]}
    made = client.conversations.create(agent_id=agent.id, extra_body=body)
    tell(client, made.id, 'CALL memory_insert {"label": "human", "new_string": "Likes tea."}')
    for number in range(4):
        tell(client, made.id, f"Message {number}.")
    summary = client.conversations.messages.compact(made.id, compaction_settings={"mode": "all"}).summary

    fork = client.conversations.fork(made.id)

    listed = list(client.conversations.messages.list(fork.id, order="asc", limit=100))
    assert [summary] == [message.content for message in listed if message.message_type == "user_message"]
    assert "Likes tea." in listed[0].content
    [own], [source] = fork.isolated_block_ids, made.isolated_block_ids
    assert own != source
    assert "Likes tea." in client.blocks.retrieve(own).value
    tell(client, fork.id, 'CALL memory_insert {"label": "human", "new_string": "Likes milk."}')
    assert "milk" in client.blocks.retrieve(own).value
    assert "milk" not in client.blocks.retrieve(source).value


def test_what_is_forked_is_found_once(client, agent):
    made = client.conversations.create(agent_id=agent.id)
    tell(client, made.id, "The quokka sings.")
    fork = client.conversations.fork(made.id)
    client.conversations.delete(client.conversations.fork(fork.id).id)
    found = client.messages.search(query="quokka")
    assert sum("quokka" in str(one) for one in found if one.message_type == "user_message") == 1


def test_a_fork_leaves_the_approval_to_its_source(client, agent):
    source = 'def pay() -> str:\n    """Pay the bill."""\n    return "paid"\n'
    tool = client.tools.upsert(source_code=source, default_requires_approval=True)
    client.agents.tools.attach(tool.id, agent_id=agent.id)
    asked = client.agents.messages.create(agent.id, input="CALL pay {}")
    fork = client.conversations.fork("default", agent_id=agent.id)

    tell(client, fork.id, "Hello!")

    approval = {"type": "approval", "tool_call_id": asked.messages[-1].tool_call.tool_call_id, "approve": True}
    done = client.agents.messages.create(agent.id, messages=[{"type": "approval", "approvals": [approval]}])
    assert said(client, fork.id) == ["CALL pay {}", "Hello!"]
    listed = client.conversations.messages.list(fork.id, order="asc").items
    assert [m.message_type for m in listed[2:]] == [
        "approval_request_message",
        "tool_return_message",
        "user_message",
        "assistant_message",
    ]
    assert (listed[3].status, "forked before" in listed[3].tool_return) == ("error", True)
    assert [m.tool_return for m in done.messages if m.message_type == "tool_return_message"] == ["paid"]


def test_nothing_is_forked_of_what_is_not_there(client, agent):
    for conversation_id in (f"conv-{UNKNOWN}", f"agent-{UNKNOWN}"):
        with pytest.raises(NotFoundError):
            client.conversations.fork(conversation_id)
