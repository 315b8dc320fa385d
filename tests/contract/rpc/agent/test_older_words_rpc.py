"""What older clients say of a model outside of its settings changes the settings, and the settings win."""

import pytest

from letta.agent.v1 import agent_service_pb2 as pb
from letta.agent.v1.model_config_pb2 import LLMConfig
from letta.common.v1.model_settings_pb2 import ModelSettings, Thinking

THINKS = Thinking(type="enabled", budget_tokens=2048)
NOT = Thinking(type="disabled")


@pytest.mark.parametrize(
    ("said", "thinking"),
    [
        ({"max_reasoning_tokens": 2048}, THINKS),
        ({"reasoning": True, "max_reasoning_tokens": 2048}, THINKS),
        ({"reasoning": False, "max_reasoning_tokens": 2048}, NOT),
        ({"reasoning": False}, NOT),
        ({"reasoning": False, "model_settings": ModelSettings(thinking=THINKS)}, THINKS),
        ({"llm_config": LLMConfig(enable_reasoner=True, max_reasoning_tokens=2048)}, THINKS),
        ({"reasoning": True}, Thinking()),
        ({}, Thinking()),
    ],
)
async def test_what_is_said_of_thinking_is_a_setting(stubs, said, thinking):
    agent = await stubs.agent(**said)

    assert agent.model_settings.thinking == thinking
    assert agent.llm_config.max_reasoning_tokens == thinking.budget_tokens


async def test_an_update_says_it_too(stubs):
    agent = await stubs.agent(max_reasoning_tokens=2048)
    change = pb.AgentUpdate(llm_config=LLMConfig(verbosity="low", effort="high"))

    request = pb.UpdateAgentRequest(agent_id=agent.id, agent=change)
    changed = (await stubs.agents.UpdateAgent(request, timeout=10)).agent

    assert (changed.model_settings.verbosity, changed.model_settings.effort) == ("low", "high")
    assert changed.model_settings.thinking == THINKS
