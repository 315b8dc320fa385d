"""Agents that act by tools alone: when their turn goes on, when it ends, and what of it is shown."""

import json

import pytest

from letta.agent.v1 import tool_rule_pb2
from letta.common.v1 import agent_type_pb2
from letta.llm.v1.generation_service_pb2 import TOOL_CHOICE_MODE_AUTO, TOOL_CHOICE_MODE_REQUIRED
from letta.tools.v1 import tool_pb2
from letta_agent.domain.agents.kinds import BASE_TOOLS, base_rules, require_kind
from letta_common.errors import InvalidArgument, OperationUnimplemented
from tests.fakes.agent.peers import answer, call, say, tool
from tests.fakes.agent.world import STOP, World, returned, shown

MEMGPT = agent_type_pb2.AGENT_TYPE_MEMGPT_AGENT
CORE = tool_pb2.TOOL_TYPE_LETTA_CORE
SEND = tool("send_message", CORE)


def speak(text, **more):
    return answer(call("send_message", {"message": text, **more}))


def roll(heartbeat=None, **more):
    given = {} if heartbeat is None else {"request_heartbeat": heartbeat}
    return answer(call("roll", given | more))


async def world_of(*script, tools=(), kind=MEMGPT, **options):
    return await World(*script, tools=[SEND, tool("roll"), *tools]).agent(kind=kind, **options)


async def test_the_model_must_call_a_tool_and_may_ask_for_a_heartbeat():
    world = await world_of(speak("Hi."))
    await world.send()
    [prompt] = world.models.prompts
    assert prompt.tool_choice.mode == TOOL_CHOICE_MODE_REQUIRED
    for schema in prompt.tools:
        parameters = json.loads(schema.parameters)
        assert parameters["properties"]["request_heartbeat"]["type"] == "boolean"
        assert parameters["required"][-1] == "request_heartbeat"


async def test_what_the_agent_says_through_its_tool_is_what_it_says():
    world = await world_of(speak("Hi."))
    got = await world.send()
    assert shown(got) == ["assistant_message"]
    assert got.messages[0].assistant_message.text == "Hi."
    assert got.stop_reason.stop_reason == STOP.STOP_REASON_END_TURN


async def test_a_call_without_a_heartbeat_ends_the_turn():
    world = await world_of(roll())
    got = await world.send()
    assert (got.stop_reason.stop_reason, len(world.models.prompts)) == (STOP.STOP_REASON_END_TURN, 1)


@pytest.mark.parametrize("asked", [True, "true", "True"])
async def test_a_heartbeat_gives_another_step(asked):
    world = await world_of(roll(asked), speak("Done."))
    got = await world.send()
    assert (got.stop_reason.stop_reason, got.usage.step_count) == (STOP.STOP_REASON_END_TURN, 2)
    assert world.texts()[3][0] == "user"
    assert "another step" in world.texts()[3][1]


@pytest.mark.parametrize("asked", [False, "false", None, 1, "yes"])
async def test_what_is_no_heartbeat_gives_none(asked):
    world = await world_of(roll(asked))
    assert (await world.send()).usage.step_count == 1


async def test_the_heartbeat_does_not_reach_the_tool():
    world = await world_of(roll(True, sides=6), speak("Done."))
    await world.send()
    assert world.tools.executed == [("tool-roll", '{"sides": 6}')]


def rule(kind, name, **more):
    body = {
        "exit_loop": tool_rule_pb2.TerminalToolRule,
        "continue_loop": tool_rule_pb2.ContinueToolRule,
        "required_before_exit": tool_rule_pb2.RequiredBeforeExitToolRule,
        "constrain_child_tools": tool_rule_pb2.ChildToolRule,
    }[kind]
    return tool_rule_pb2.ToolRule(**{kind: body(tool_name=name, **more)})


async def test_a_continuing_tool_gives_a_step_without_a_heartbeat():
    world = await world_of(roll(False), speak("Done."), rules=[rule("continue_loop", "roll")])
    assert (await world.send()).usage.step_count == 2


async def test_a_tool_with_children_gives_a_step_without_a_heartbeat():
    rules = [rule("constrain_child_tools", "roll", children=["send_message"])]
    world = await world_of(roll(False), speak("Done."), rules=rules)
    assert (await world.send()).usage.step_count == 2
    assert [schema.name for schema in world.models.prompts[1].tools] == ["send_message"]


@pytest.mark.parametrize(("asked", "stop"), [(True, "TOOL_RULE"), (False, "END_TURN")])
async def test_a_last_tool_ends_the_turn_whatever_is_asked(asked, stop):
    world = await world_of(roll(asked), rules=[rule("exit_loop", "roll")])
    got = await world.send()
    assert (got.stop_reason.stop_reason, got.usage.step_count) == (STOP.Value(f"STOP_REASON_{stop}"), 1)


async def test_a_required_tool_is_asked_for_before_the_end():
    world = await world_of(speak("Bye."), roll(), rules=[rule("required_before_exit", "roll")])
    got = await world.send()
    assert (got.stop_reason.stop_reason, got.usage.step_count) == (STOP.STOP_REASON_END_TURN, 2)
    assert "roll" in world.texts()[3][1]


async def test_a_refused_call_gives_another_step():
    world = await world_of(answer(call("nothing")), speak("Sorry."))
    got = await world.send()
    assert got.usage.step_count == 2
    text, failed = returned(got)
    assert (failed, "nothing" in text) == (True, True)


async def test_words_without_a_call_are_kept_and_end_the_turn():
    world = await world_of(answer(say("I forgot my tools.")))
    got = await world.send()
    assert got.stop_reason.stop_reason == STOP.STOP_REASON_NO_TOOL_CALL
    assert got.messages[0].assistant_message.text == "I forgot my tools."
    await world.send("again")


async def test_an_agent_without_tools_may_speak():
    world = await World(answer(say("Hello."))).agent(kind=agent_type_pb2.AGENT_TYPE_REACT_AGENT)
    assert (await world.send()).stop_reason.stop_reason == STOP.STOP_REASON_END_TURN
    assert world.models.prompts[0].tool_choice.mode == TOOL_CHOICE_MODE_AUTO


async def test_the_last_allowed_step_ends_the_turn():
    world = await world_of(*(roll(True) for _ in range(5)))
    assert (await world.send(max_steps=3)).stop_reason.stop_reason == STOP.STOP_REASON_MAX_STEPS


async def test_only_one_call_is_made_in_a_step():
    two = answer(call("roll", id="call-1"), call("roll", id="call-2"))
    world = await world_of(two, parallel=True)
    await world.send()
    assert len(world.tools.executed) == 1


async def test_agents_of_the_newer_kind_have_no_heartbeat():
    world = await world_of(answer(say("Hi.")), kind=agent_type_pb2.AGENT_TYPE_LETTA_V1_AGENT)
    await world.send()
    [prompt] = world.models.prompts
    assert prompt.tool_choice.mode == TOOL_CHOICE_MODE_AUTO
    assert all("request_heartbeat" not in schema.parameters for schema in prompt.tools)


def test_the_usual_rules_are_about_the_usual_tools():
    def told(kind):
        return {(r.WhichOneof("rule"), getattr(r, r.WhichOneof("rule")).tool_name) for r in base_rules(kind, names)}

    names = set(BASE_TOOLS[MEMGPT])
    assert told(MEMGPT) == {("exit_loop", "send_message")} | {("continue_loop", n) for n in names - {"send_message"}}
    names = {"memory_finish_edits"}
    assert told(agent_type_pb2.AGENT_TYPE_SLEEPTIME_AGENT) == {("exit_loop", "memory_finish_edits")}
    assert told(agent_type_pb2.AGENT_TYPE_LETTA_V1_AGENT) == set()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (agent_type_pb2.AGENT_TYPE_SPLIT_THREAD_AGENT, InvalidArgument),
        (agent_type_pb2.AGENT_TYPE_VOICE_CONVO_AGENT, OperationUnimplemented),
        (agent_type_pb2.AGENT_TYPE_VOICE_SLEEPTIME_AGENT, OperationUnimplemented),
    ],
)
def test_kinds_that_do_not_exist_are_refused(kind, error):
    with pytest.raises(error):
        require_kind(kind)


def test_every_other_kind_exists():
    refused = {7, 8, 9}
    for kind in set(agent_type_pb2.AgentType.values()) - refused:
        require_kind(kind)
