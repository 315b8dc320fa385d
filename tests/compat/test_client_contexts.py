"""Contexts through the unmodified SDK: what fills them, compacting and forgetting them, storing their prompt anew."""

from __future__ import annotations

import json

import pytest

from letta_client import BadRequestError, NotFoundError

KEYS = {
    "context_window_size_max",
    "context_window_size_current",
    "num_messages",
    "num_archival_memory",
    "num_recall_memory",
    "num_tokens_external_memory_summary",
    "external_memory_summary",
    "num_tokens_system",
    "system_prompt",
    "num_tokens_core_memory",
    "core_memory",
    "num_tokens_memory_filesystem",
    "memory_filesystem",
    "num_tokens_tool_usage_rules",
    "tool_usage_rules",
    "num_tokens_directories",
    "directories",
    "num_tokens_summary_memory",
    "summary_memory",
    "num_tokens_functions_definitions",
    "functions_definitions",
    "num_tokens_messages",
    "messages",
}
"""What the retired server 0.16.8 answers."""


def context_of(client, agent_id):
    return client.get(f"/v1/agents/{agent_id}/context", cast_to=dict[str, object])


def talk(client, agent_id, turns=4):
    for turn in range(turns):
        client.agents.messages.create(agent_id, input=f"Message number {turn}.")


def test_a_context_has_the_keys_of_v1(client, agent):
    found = context_of(client, agent.id)
    assert set(found) == KEYS
    assert (found["memory_filesystem"], found["directories"], found["summary_memory"]) == (None, None, None)
    assert {tool["function"]["name"] for tool in found["functions_definitions"]} >= {"memory_insert"}
    assert [message["role"] for message in found["messages"]] == ["system"]


def test_messages_are_compacted(client, agent):
    talk(client, agent.id)
    done = client.agents.messages.compact(agent.id, compaction_settings={"mode": "all"})
    assert (done.num_messages_before, done.num_messages_after) == (9, 2)
    found = context_of(client, agent.id)
    assert (found["num_messages"], found["summary_memory"]) == (2, done.summary)


def test_too_few_messages_are_a_bad_request(client, agent):
    with pytest.raises(BadRequestError):
        client.agents.messages.compact(agent.id)


def test_a_conversation_is_compacted(client, agent):
    made = client.conversations.create(agent_id=agent.id)
    with pytest.raises(BadRequestError):
        client.conversations.messages.compact(made.id)
    for turn in range(4):
        client.conversations.messages.create(made.id, input=f"Message number {turn}.", streaming=False)
    done = client.conversations.messages.compact(made.id)
    assert done.num_messages_after < done.num_messages_before == 9


def test_the_prompt_is_recompiled(client, agent):
    client.agents.update(agent.id, system="Answer in rhymes.")
    prompt = json.loads(client.agents.recompile(agent.id))  # the SDK hands a bare string on as it came
    assert prompt.startswith("Answer in rhymes.")
    assert context_of(client, agent.id)["messages"][0]["content"][0]["text"] == prompt
    made = client.conversations.create(agent_id=agent.id)
    assert made.id in client.conversations.recompile(made.id, dry_run=True)


def test_messages_are_forgotten(client, agent):
    talk(client, agent.id, 1)
    state = client.agents.messages.reset(agent.id, add_default_initial_messages=True)
    assert len(state.message_ids) == 1
    assert context_of(client, agent.id)["num_recall_memory"] == 1


def test_nothing_of_an_unknown_agent_is_cancelled(client):
    with pytest.raises(NotFoundError):
        client.agents.messages.cancel("agent-00000000-0000-4000-8000-000000000001")
