"""The loop of a run, against twins of the services it talks to."""

import json

import pytest

from letta.agent.v1 import run_pb2, tool_rule_pb2
from letta.common.v1 import message_pb2
from letta.llm.v1.generation_service_pb2 import (
    CALL_PURPOSE_STEP,
    CALL_PURPOSE_SUMMARY,
    TOOL_CHOICE_MODE_AUTO,
    TOOL_CHOICE_MODE_TOOL,
    ToolChoice,
)
from letta_agent.domain.journal.records import ListStepsRequest, RunStatus
from letta_agent.domain.peers.memory import Message
from letta_agent.domain.runs.runs import SendCommand
from letta_agent.domain.toolcalls.outcomes import failed
from letta_agent.domain.toolcalls.rules import UNREADABLE
from letta_common.errors import (
    ContextWindowExceeded,
    LLMBadRequest,
    LLMUnavailable,
    NoPendingApproval,
    PendingApproval,
    ValidationFailed,
)
from letta_common.values.paging import Page
from tests.fakes.agent.peers import answer, call, say, tool
from tests.fakes.agent.world import AGENT, ANN, MEMORY, SIGNED, STOP, World, returned, shown


async def test_an_answer_without_calls_ends_the_turn():
    world = await World(answer(say("Hello."))).agent()
    got = await world.send()

    assert got.stop_reason.stop_reason == STOP.STOP_REASON_END_TURN
    assert [m.assistant_message.text for m in got.messages] == ["Hello."]
    assert (got.usage.prompt_tokens, got.usage.total_tokens, got.usage.step_count) == (100, 110, 1)
    assert world.texts() == [("user", "hi"), ("assistant", "Hello.")]
    assert world.memory.calls == ["provision", "begin_step", "commit_step"]


async def test_the_prompt_has_instructions_memory_and_messages_but_no_second_system_prompt():
    world = await World().agent()
    await world.send()
    [prompt] = world.models.prompts
    assert prompt.system.startswith("Be kind.\n\n<memory_blocks>")
    assert "<value>\nBob\n</value>" in prompt.system
    assert [message.role for message in prompt.messages] == [message_pb2.MESSAGE_ROLE_USER]


async def test_calls_are_executed_until_none_comes():
    script = (answer(call("roll", {"sides": 6})), answer(say("It is 4.")))
    world = await World(
        *script, tools=[tool("roll")], behaviours={"roll": lambda given: f"of {given['sides']}"}
    ).agent()
    got = await world.send()

    assert shown(got) == ["tool_call_message", "tool_return_message", "assistant_message"]
    assert returned(got) == ("of 6", False)
    assert world.texts() == [("user", "hi"), ("assistant", "roll"), ("tool", "of 6"), ("assistant", "It is 4.")]
    assert got.usage.step_count == 2


async def test_memory_tools_edit_blocks_that_the_next_step_sees():
    script = (answer(call("memory_insert", {"label": "human", "new_string": "Likes tea."})), answer(say("ok")))
    world = await World(*script, tools=[tool("memory_insert", MEMORY)]).agent()
    got = await world.send()

    assert returned(got) == ("Bob\nLikes tea.", False)
    assert "Likes tea." in world.models.prompts[1].system
    assert world.tools.executed == []


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (call("nope"), "[ToolConstraintError] Cannot call nope, valid tools include: ['boom', 'memory_insert']."),
        (call("boom"), "boom failed"),
        (call("memory_insert", {"label": "x", "new_string": "y"}), "no block x"),
        (call("memory_insert", {"new_string": "y"}), "memory_insert() missing required argument: 'label'"),
    ],
)
async def test_what_goes_wrong_in_a_tool_is_told_to_the_model(part, expected):
    tools = [tool("boom"), tool("memory_insert", MEMORY)]
    behaviours = {"boom": lambda _: failed("boom failed")}
    world = await World(answer(part), answer(say("sorry")), tools=tools, behaviours=behaviours).agent()
    got = await world.send()
    assert returned(got) == (expected, True)
    assert got.stop_reason.stop_reason == STOP.STOP_REASON_END_TURN


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("written", ["{not json", '{"a": 1, "b": ', "[1]", '{"a":' * 2000, "3"])
async def test_arguments_that_are_no_object_are_told_to_the_model_and_not_executed(written, cut, stream):
    world = await World(answer(call("roll", written), cut=cut), tools=[tool("roll")]).agent()
    got = await world.send(stream_tokens=stream)

    text, failed = returned(got)
    assert failed
    assert text.startswith(UNREADABLE)
    assert written[:200] in text
    assert (world.tools.executed, got.stop_reason.stop_reason) == ([], STOP.STOP_REASON_END_TURN)
    assert len(world.models.prompts) == 2, "the next step follows"


async def test_a_call_that_cannot_be_read_waits_for_nobody_and_ends_nothing():
    rules = [tool_rule_pb2.ToolRule(requires_approval=tool_rule_pb2.RequiresApprovalToolRule(tool_name="roll"))]
    world = await World(answer(call("roll", "{oops")), tools=[tool("roll")]).agent(tool_rules=rules)
    got = await world.send()
    assert (returned(got)[1], got.stop_reason.stop_reason) == (True, STOP.STOP_REASON_END_TURN)

    last = [tool_rule_pb2.ToolRule(exit_loop=tool_rule_pb2.TerminalToolRule(tool_name="roll"))]
    world = await World(answer(call("roll", "{oops")), tools=[tool("roll")]).agent(tool_rules=last)
    got = await world.send()
    assert (len(world.models.prompts), got.stop_reason.stop_reason) == (2, STOP.STOP_REASON_END_TURN)


async def test_what_the_model_could_not_be_asked_stands_at_the_step():
    warned = answer(say("hi"))
    warned.warnings.append("tool 'x' was left out")
    world = await World(warned).agent()
    got = await world.send()

    [step] = await world.store.list_steps(ANN, ListStepsRequest(run_id=got.run_id), Page())
    assert step.warnings == ["tool 'x' was left out"]


async def test_long_returns_are_cut():
    long = tool("roll")
    long.return_char_limit = 5
    world = await World(answer(call("roll")), tools=[long], behaviours={"roll": lambda _: "x" * 9}).agent()
    text, _ = returned(await world.send())
    assert text == "xxxxx\n[The tool returned 9 characters; only the first 5 are shown.]"


async def test_a_call_names_the_version_that_the_model_chose():
    world = await World(answer(call("roll")), tools=[tool("roll", version=3)]).agent()
    await world.send()
    assert world.tools.versions == [3]


async def test_only_the_first_of_several_calls_is_kept_unless_allowed():
    several = answer(call("roll", id="1"), call("roll", id="2"))
    world = await World(several, tools=[tool("roll")]).agent()
    await world.send()
    assert len(world.tools.executed) == 1

    world = await World(several, tools=[tool("roll", enable_parallel_execution=True)]).agent(parallel=True)
    got = await world.send()
    assert len(world.tools.executed) == 2
    assert len(got.messages[1].tool_return_message.tool_returns) == 2


async def test_the_last_allowed_step_stops_the_run():
    world = await World(answer(call("roll")), tools=[tool("roll")]).agent()
    got = await world.send(max_steps=1)
    assert (got.stop_reason.stop_reason, shown(got)) == (
        STOP.STOP_REASON_MAX_STEPS,
        ["tool_call_message", "tool_return_message"],
    )


async def test_an_empty_answer_ends_the_turn_without_a_message():
    world = await World(answer(say(""))).agent()
    got = await world.send()
    assert (got.stop_reason.stop_reason, list(got.messages)) == (STOP.STOP_REASON_END_TURN, [])


async def test_a_cut_answer_says_so():
    world = await World(answer(say("Once upon"), cut=True)).agent()
    assert (await world.send()).stop_reason.stop_reason == STOP.STOP_REASON_MAX_TOKENS_EXCEEDED


async def test_a_failing_model_fails_the_run_and_its_message_does_not_stay():
    world = await World(LLMBadRequest("no such thing")).agent()
    with pytest.raises(LLMBadRequest) as caught:
        await world.send()

    record = await world.store.get(ANN, caught.value.metadata["run_id"])
    assert (record.status, record.stop_reason) == (RunStatus.RUN_STATUS_FAILED, STOP.STOP_REASON_LLM_API_ERROR)
    assert json.loads(record.error)["error_type"] == "llm_bad_request"
    assert world.texts() == []
    assert (await world.send("again")).stop_reason.stop_reason == STOP.STOP_REASON_END_TURN


async def test_neither_messages_nor_input_is_refused():
    world = await World().agent()
    with pytest.raises(ValidationFailed, match="Messages must not be empty"):
        await world.runs.send(ANN, SendCommand(AGENT, AGENT, run_pb2.RunRequest()), SIGNED)


async def test_environment_variables_reach_the_tool():
    world = await World(answer(call("roll")), tools=[tool("roll")]).agent(secrets=b"sealed")
    seen = []
    execute = world.tools.execute
    world.tools.execute = lambda given: (seen.append(dict(given.environment_variables)), execute(given))[1]
    await world.send()
    assert seen == [{"KEY": "value"}]


# Approvals and tools of the client


def approval(call_id="call-1", *, approve=True, reason=""):
    given = message_pb2.ApprovalReturn(tool_call_id=call_id, approve=approve, reason=reason)
    return run_pb2.InputMessage(
        approval=run_pb2.ApprovalCreate(approvals=[message_pb2.Approval(approval_return=given)])
    )


async def test_a_gated_call_waits_and_is_executed_once_approved():
    world = await World(answer(call("pay")), answer(say("paid")), tools=[tool("pay")]).agent(approve=["pay"])
    asked = await world.send()
    assert (asked.stop_reason.stop_reason, shown(asked)) == (
        STOP.STOP_REASON_REQUIRES_APPROVAL,
        ["approval_request_message"],
    )
    assert world.tools.executed == []
    with pytest.raises(PendingApproval) as caught:
        await world.send("hello?")
    assert caught.value.metadata["pending_request_id"] == asked.messages[0].id
    with pytest.raises(NoPendingApproval):
        await world.send(messages=[approval("call-9")])

    got = await world.send(messages=[approval()])
    assert shown(got) == ["tool_return_message", "assistant_message"]
    assert returned(got) == ("ok", False)
    assert len(world.tools.executed) == 1


async def test_a_denied_call_is_told_to_the_model():
    world = await World(answer(call("pay")), answer(say("fine")), tools=[tool("pay")]).agent(approve=["pay"])
    await world.send()
    got = await world.send(messages=[approval(approve=False, reason="too dear")])
    assert returned(got) == ("Error: request to call tool denied. User reason: too dear", True)
    assert world.tools.executed == []


async def test_a_tool_of_the_client_is_executed_by_the_client():
    world = await World(answer(call("open_door", {"room": "a"})), answer(say("open"))).agent()
    asked = await world.send(client_tools=[run_pb2.ClientTool(name="open_door", description="opens")])
    assert [schema.name for schema in world.models.prompts[0].tools] == ["open_door"]
    assert shown(asked) == ["approval_request_message"]
    back = message_pb2.ToolReturn(tool_call_id="call-1", text="opened", status=message_pb2.TOOL_RETURN_STATUS_SUCCESS)
    got = await world.send(messages=[run_pb2.InputMessage(tool_return=run_pb2.ToolReturnCreate(tool_returns=[back]))])
    assert returned(got) == ("opened", False)
    told = world.models.prompts[1].messages[-1]
    assert (told.role, told.parts[0].tool_return.content) == (message_pb2.MESSAGE_ROLE_TOOL, "opened")


# Rules and compaction


async def test_a_terminal_tool_ends_the_run():
    rule = tool_rule_pb2.ToolRule(exit_loop=tool_rule_pb2.TerminalToolRule(tool_name="roll"))
    world = await World(answer(call("roll")), tools=[tool("roll")]).agent(rules=[rule])
    assert (await world.send()).stop_reason.stop_reason == STOP.STOP_REASON_TOOL_RULE


async def test_a_first_tool_is_forced():
    rule = tool_rule_pb2.ToolRule(run_first=tool_rule_pb2.InitToolRule(tool_name="roll", args='{"sides": 3}'))
    seen = {"roll": lambda given: str(given["sides"])}
    world = await World(answer(call("roll", {"sides": 9})), tools=[tool("roll"), tool("x")], behaviours=seen).agent(
        rules=[rule]
    )
    got = await world.send()
    assert returned(got) == ("3", False)
    first, second = world.models.prompts
    assert first.tool_choice == ToolChoice(mode=TOOL_CHOICE_MODE_TOOL, name="roll")
    assert second.tool_choice == ToolChoice(mode=TOOL_CHOICE_MODE_AUTO)


async def test_a_required_tool_is_asked_for_before_the_end():
    rule = tool_rule_pb2.ToolRule(required_before_exit=tool_rule_pb2.RequiredBeforeExitToolRule(tool_name="roll"))
    script = (answer(say("bye")), answer(call("roll")), answer(say("bye!")))
    world = await World(*script, tools=[tool("roll")]).agent(rules=[rule])
    got = await world.send()
    assert shown(got) == [
        "assistant_message",
        "user_message",
        "tool_call_message",
        "tool_return_message",
        "assistant_message",
    ]


async def fill(world, turns=10):
    for turn in range(turns):
        await world.send(f"turn {turn} " + "word " * 400)


async def test_a_full_context_is_summarized():
    world = await World().agent(window=6_000)
    world.models.script = [answer(say("ok"), tokens=(540 * turn, 10)) for turn in range(1, 11)]
    await fill(world)
    world.models.script = [answer(say("The summary.")), answer(say("ok"))]
    got = await world.send("and now", include_compaction_messages=True)

    summary, last = world.models.prompts[-2:]
    assert (summary.attribution.purpose, last.attribution.purpose) == (CALL_PURPOSE_SUMMARY, CALL_PURPOSE_STEP)
    assert shown(got) == ["summary_message", "assistant_message"]
    assert got.messages[0].summary_message.summary == "The summary."
    first = last.messages[0]
    assert first.role == message_pb2.MESSAGE_ROLE_SUMMARY
    assert len(last.messages) < 20
    assert len(world.memory.thread(AGENT).window) < 20


async def test_a_failing_summarizer_never_fails_the_run():
    world = await World(ContextWindowExceeded("too long"), LLMUnavailable("down"), answer(say("ok"))).agent()
    world.memory.thread(AGENT).messages += [
        Message(id=f"message-{n}", role=message_pb2.MESSAGE_ROLE_USER, parts=[say(f"turn {n}")]).SerializeToString()
        for n in range(1, 6)
    ]
    got = await world.send()
    assert got.stop_reason.stop_reason == STOP.STOP_REASON_END_TURN
    kept = world.models.prompts[-1].messages[0]
    assert "earlier messages have left the context" in kept.parts[0].text.text
