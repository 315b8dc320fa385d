"""What only older clients say of an agent changes the agent, and only who asks reads it."""

import pytest

from letta.agent.v1 import agent_pb2
from letta.agent.v1 import agent_service_pb2 as pb
from letta.common.v1.model_settings_pb2 import THINKING_TYPE_DISABLED, THINKING_TYPE_ENABLED, ModelSettings, Thinking
from letta.compat.v1.agent_pb2 import AgentCompat, EmbeddingConfig, LLMConfig
from letta_rpc.boundary import COMPAT, COMPAT_KEY

THINKS = Thinking(type=THINKING_TYPE_ENABLED, budget_tokens=2048)
NOT = Thinking(type=THINKING_TYPE_DISABLED)
ASKING = {"timeout": 10, "metadata": ((COMPAT_KEY, COMPAT),)}


async def read(stubs, agent_id, **more):
    request = pb.GetAgentRequest(agent_id=agent_id, include=[pb.AGENT_INCLUDE_BLOCKS])
    return (await stubs.agents.GetAgent(request, **({"timeout": 10} | more))).agent


async def update(stubs, agent_id, *paths, **change):
    request = pb.UpdateAgentRequest(agent_id=agent_id, agent=agent_pb2.Agent(**change))
    request.update_mask.paths.extend(paths)
    return (await stubs.agents.UpdateAgent(request, **ASKING)).agent


@pytest.mark.parametrize(
    ("said", "settings", "thinking"),
    [
        ({"max_reasoning_tokens": 2048}, {}, THINKS),
        ({"reasoning": True, "max_reasoning_tokens": 2048}, {}, THINKS),
        ({"reasoning": False, "max_reasoning_tokens": 2048}, {}, NOT),
        ({"reasoning": False}, {}, NOT),
        ({"reasoning": False}, {"thinking": THINKS}, THINKS),
        ({"llm_config": LLMConfig(enable_reasoner=True, max_reasoning_tokens=2048)}, {}, THINKS),
        ({"reasoning": True}, {}, Thinking()),
        ({}, {}, Thinking()),
    ],
)
async def test_what_is_said_of_thinking_is_a_setting(stubs, said, settings, thinking):
    agent = await stubs.agent(compat=AgentCompat(**said), model_settings=ModelSettings(**settings))

    assert agent.model_settings.thinking == thinking
    shown = (await read(stubs, agent.id, **ASKING)).compat
    assert shown.llm_config.max_reasoning_tokens == thinking.budget_tokens


async def test_an_update_says_it_too(stubs):
    agent = await stubs.agent(compat=AgentCompat(max_reasoning_tokens=2048))
    said = LLMConfig(verbosity="low", effort="high")

    changed = await update(
        stubs, agent.id, compat=AgentCompat(llm_config=said, max_tokens=70, parallel_tool_calls=True)
    )

    settings = changed.model_settings
    assert (settings.verbosity, settings.effort) == ("low", "high")
    assert (settings.max_output_tokens, settings.parallel_tool_calls) == (70, True)
    assert settings.thinking == THINKS
    config = changed.compat.llm_config
    assert (config.verbosity, config.effort, config.max_tokens, config.parallel_tool_calls) == ("low", "high", 70, True)


@pytest.mark.parametrize("paths", [(), ("compat.llm_config",), ("compat",)])
async def test_models_and_windows_may_be_named_in_older_words(stubs, paths):
    embedder = EmbeddingConfig(handle="builtin/use-multilingual")
    said = AgentCompat(llm_config=LLMConfig(context_window=9_000), embedding_config=embedder)
    agent = await stubs.agent(compat=said)
    assert (agent.context_window_limit, agent.embedding) == (9_000, embedder.handle)

    config = LLMConfig(provider_name="builtin", model="rules", context_window=8_000)
    changed = await update(stubs, agent.id, *paths, compat=AgentCompat(llm_config=config))

    assert (changed.model, changed.context_window_limit, changed.embedding) == ("builtin/rules", 8_000, embedder.handle)
    assert (changed.compat.llm_config.handle, changed.compat.llm_config.context_window) == ("builtin/rules", 8_000)


async def test_who_does_not_ask_meets_no_older_words(stubs):
    agent = await stubs.agent(tool_ids=[(await stubs.tool()).id])
    block, tool = agent.blocks[0].id, agent.tools[0].id
    calls = (
        lambda to: stubs.agents.GetAgent(pb.GetAgentRequest(agent_id=agent.id), **to),
        lambda to: stubs.agents.ListAgents(pb.ListAgentsRequest(), **to),
        lambda to: stubs.agents.UpdateAgent(pb.UpdateAgentRequest(agent_id=agent.id, agent=agent_pb2.Agent()), **to),
        lambda to: stubs.agents.AttachBlock(pb.AttachBlockRequest(agent_id=agent.id, block_id=block), **to),
        lambda to: stubs.agents.DetachBlock(pb.DetachBlockRequest(agent_id=agent.id, block_id=block), **to),
        lambda to: stubs.agents.AttachTool(pb.AttachToolRequest(agent_id=agent.id, tool_id=tool), **to),
        lambda to: stubs.agents.SetToolApproval(pb.SetToolApprovalRequest(agent_id=agent.id, tool_name="roll"), **to),
        lambda to: stubs.agents.DetachTool(pb.DetachToolRequest(agent_id=agent.id, tool_id=tool), **to),
        lambda to: stubs.agents.ResetMessages(pb.ResetMessagesRequest(agent_id=agent.id), **to),
        lambda to: stubs.agents.CreateAgent(pb.CreateAgentRequest(agent=agent_pb2.Agent(model="builtin/echo")), **to),
    )
    for call in calls:
        for asked in (False, True):
            answer = await call(ASKING if asked else {"timeout": 10})
            [shown] = answer.agents if hasattr(answer, "agents") else [answer.agent]
            assert shown.HasField("compat") is asked


async def test_older_words_cost_no_call(stubs):
    agent = await stubs.agent()
    counts = []
    for more in ({}, ASKING):
        before = sum(stubs.faults.calls.values())
        shown = await read(stubs, agent.id, **more)
        counts.append(sum(stubs.faults.calls.values()) - before)

    assert counts == [1, 1]
    assert list(shown.compat.memory.blocks) == list(shown.blocks)
    assert shown.compat.memory.blocks[0].value == "Ann"
