"""The loop of a run, against twins of the services it talks to."""

import asyncio
import json
from dataclasses import replace

import pytest

from letta.agent.v1 import agent_pb2, run_pb2, tool_rule_pb2
from letta.common.v1 import message_pb2, usage_pb2
from letta.memory.v1 import block_pb2
from letta.tools.v1 import tool_pb2
from letta_agent.domain.builtin_tools import BuiltinTools
from letta_agent.domain.calls import UNKNOWN_OUTCOME, Caller
from letta_agent.domain.compaction import Compactor
from letta_agent.domain.events import EventWriter
from letta_agent.domain.jobs import Definition, RunStatus
from letta_agent.domain.loop import Tools
from letta_agent.domain.peers import CallResult, Message
from letta_agent.domain.runner import Runner, RunnerOptions
from letta_agent.domain.runs import Follow, Runs, Send
from letta_agent.domain.toolsets import Toolsets
from letta_agent.store.fake import FakeRuns
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.errors import (
    ContextWindowExceeded,
    ConversationBusy,
    Fenced,
    IdempotencyConflict,
    LLMBadRequest,
    LLMUnavailable,
    NoPendingApproval,
    PendingApproval,
    ServiceUnavailable,
    ValidationFailed,
)
from letta_common.letta_messages import type_of
from tests.fakes.agent_peers import ScriptedModels, TwinCredentials, TwinMemory, TwinTools, answer, call, say, tool

STOP = usage_pb2.StopReason
ANN = Actor("org-a", "user-a", frozenset({"write"}))
AGENT = "agent-1"
SIGNED = b"signed"
MEMORY = tool_pb2.TOOL_TYPE_LETTA_SLEEPTIME_CORE


class NoSecrets:
    def environment(self, organization_id, agent_id, sealed):
        return {"KEY": "value"}


class World:
    """One replica of the agent service among twins; `another()` is a second one on the same data."""

    def __init__(self, *script, tools=(), behaviours=None, store=None, memory=None, twin_tools=None):
        self.clock = SystemClock()
        self.store = store or FakeRuns(self.clock)
        self.memory = memory or TwinMemory()
        self.models = ScriptedModels(*script)
        self.tools = twin_tools or TwinTools(*tools, **(behaviours or {}))
        kit = Tools(
            store=self.store,
            memory=self.memory,
            models=self.models,
            toolsets=Toolsets(self.tools, self.clock),
            caller=Caller(BuiltinTools(self.memory, self.clock), self.tools),
            compactor=Compactor(self.models, self.clock),
            secrets=NoSecrets(),
            clock=self.clock,
        )
        self.writer = EventWriter(self.store, window=0)
        self.credentials = TwinCredentials()
        options = RunnerOptions(owner=f"replica-{id(self)}", lease_ms=60_000)
        self.runner = Runner(kit, self.store, self.credentials, self.writer, options)
        self.runs = Runs(self.store, self.runner, self.memory, self.clock)

    async def agent(self, **changes):
        state = agent_pb2.AgentState(id=AGENT, name="a", model="twin/model", system="Be kind.")
        state.llm_config.context_window = changes.pop("window", 128_000)
        state.llm_config.parallel_tool_calls = changes.pop("parallel", False)
        for name in changes.pop("approve", ()):
            state.tool_rules.add(requires_approval=tool_rule_pb2.RequiresApprovalToolRule(tool_name=name))
        state.tool_rules.extend(changes.pop("rules", ()))
        ids = tuple(found.id for found in self.tools.tools.values())
        await self.store.put_agent(ANN, Definition(state, ids, changes.pop("secrets", b"")))
        first = Message(id="message-0", role=message_pb2.MESSAGE_ROLE_SYSTEM, parts=[say("compiled")])
        await self.memory.provision(AGENT, "a", [block_pb2.Block(label="human", value="Bob", limit=100)], [], [first])
        return self

    def another(self, *script):
        return World(*script, store=self.store, memory=self.memory, twin_tools=self.tools)

    async def send(self, text="hi", **request):
        return await self.runs.send(ANN, send_of(text, **request), SIGNED)

    def texts(self):
        return self.memory.texts(AGENT)[1:]

    def expire(self):
        """Let the leases of this replica run out, as when it died."""
        for thread in self.store._threads.values():
            thread.until = None


def send_of(text="hi", *, request_id="", record=False, **request):
    messages = request.pop("messages", None)
    asked = run_pb2.RunRequest(messages=messages) if messages else run_pb2.RunRequest(input_text=text)
    asked.MergeFrom(run_pb2.RunRequest(**request))
    return Send(AGENT, AGENT, asked, request_id, record=record)


def shown(answered):
    return [type_of(message) for message in answered.messages]


def returned(answered):
    [found] = [m.tool_return_message for m in answered.messages if m.HasField("tool_return_message")]
    return found.tool_return, found.status == message_pb2.TOOL_RETURN_STATUS_ERROR


async def test_an_answer_without_calls_ends_the_turn():
    world = await World(answer(say("Hello."))).agent()
    got = await world.send()

    assert got.stop_reason == STOP.STOP_REASON_END_TURN
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
    assert [Message.FromString(data).role for data in prompt.messages] == [message_pb2.MESSAGE_ROLE_USER]


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
    behaviours = {"boom": lambda _: CallResult("boom failed", is_error=True)}
    world = await World(answer(part), answer(say("sorry")), tools=tools, behaviours=behaviours).agent()
    got = await world.send()
    assert returned(got) == (expected, True)
    assert got.stop_reason == STOP.STOP_REASON_END_TURN


async def test_arguments_that_are_no_object_count_as_none():
    seen = []
    world = await World(
        answer(call("roll", "{not json")), tools=[tool("roll")], behaviours={"roll": seen.append}
    ).agent()
    world.tools.behaviours["roll"] = str
    got = await world.send()
    assert returned(got) == ("{}", False)


async def test_long_returns_are_cut():
    long = tool("roll")
    long.return_char_limit = 5
    world = await World(answer(call("roll")), tools=[long], behaviours={"roll": lambda _: "x" * 9}).agent()
    text, _ = returned(await world.send())
    assert text == "xxxxx\n[The tool returned 9 characters; only the first 5 are shown.]"


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
    assert (got.stop_reason, shown(got)) == (STOP.STOP_REASON_MAX_STEPS, ["tool_call_message", "tool_return_message"])


async def test_an_empty_answer_ends_the_turn_without_a_message():
    world = await World(answer(say(""))).agent()
    got = await world.send()
    assert (got.stop_reason, list(got.messages)) == (STOP.STOP_REASON_END_TURN, [])


async def test_a_cut_answer_says_so():
    world = await World(answer(say("Once upon"), cut=True)).agent()
    assert (await world.send()).stop_reason == STOP.STOP_REASON_MAX_TOKENS_EXCEEDED


async def test_a_failing_model_fails_the_run_and_keeps_the_message():
    world = await World(LLMBadRequest("no such thing")).agent()
    with pytest.raises(LLMBadRequest) as caught:
        await world.send()

    record = await world.store.get(ANN, caught.value.metadata["run_id"])
    assert (record.status, record.stop_reason) == (RunStatus.RUN_STATUS_FAILED, STOP.STOP_REASON_LLM_API_ERROR)
    assert json.loads(record.error)["error_type"] == "llm_bad_request"
    assert world.texts() == [("user", "hi")]
    assert (await world.send("again")).stop_reason == STOP.STOP_REASON_END_TURN


async def test_neither_messages_nor_input_is_refused():
    world = await World().agent()
    with pytest.raises(ValidationFailed, match="Messages must not be empty"):
        await world.runs.send(ANN, Send(AGENT, AGENT, run_pb2.RunRequest()), SIGNED)


async def test_environment_variables_reach_the_tool():
    world = await World(answer(call("roll")), tools=[tool("roll")]).agent(secrets=b"sealed")
    seen = []
    execute = world.tools.execute
    world.tools.execute = lambda given: (seen.append(given.environment), execute(given))[1]
    await world.send()
    assert seen == [{"KEY": "value"}]


# Streams


async def events_of(world, send):
    admitted = await world.runs.admit(ANN, send, SIGNED)
    return [event async for event in world.runs.follow(ANN, admitted.run_id, Follow())]


async def test_a_stream_ends_with_reason_and_usage():
    world = await World(answer(say("Hello there."))).agent()
    events = await events_of(world, send_of())
    assert [event.WhichOneof("event") for event in events] == ["message", "stop_reason", "usage_statistics"]
    assert [event.seq_id for event in events] == [1, 2, 3]


async def test_tokens_are_pieces_of_the_message_that_is_stored():
    world = await World(answer(call("roll", {"a": 1})), answer(say("Hello there.")), tools=[tool("roll")]).agent()
    events = await events_of(world, send_of(stream_tokens=True))
    told = [event.message for event in events if event.HasField("message")]

    assert [type_of(m) for m in told] == ["tool_call_message"] * 2 + ["tool_return_message"] + ["assistant_message"] * 2
    assert [m.assistant_message.text for m in told[3:]] == ["Hello", "there."]
    assert told[0].tool_call_message.tool_call_delta.name == "roll"
    assert told[1].tool_call_message.tool_call_delta.arguments == '{"a": 1}'
    stored = [Message.FromString(data) for data in world.memory.thread(AGENT).messages]
    assert {m.id for m in told} == {m.id for m in stored[2:]}
    assert [event.seq_id for event in events] == list(range(1, len(events) + 1))


async def test_a_stream_can_be_read_again_from_any_position():
    world = await World(answer(say("Hello."))).agent()
    admitted = await world.runs.admit(ANN, send_of(record=True), SIGNED)
    first = [event async for event in world.runs.follow(ANN, admitted.run_id, Follow())]
    await world.writer.flush()

    again = [event async for event in world.runs.follow(ANN, admitted.run_id, Follow(after=1))]
    assert again == first[1:]


async def test_a_run_without_stored_events_is_told_from_its_messages():
    world = await World(answer(say("Hello."))).agent()
    got = await world.send()
    events = [event async for event in world.runs.follow(ANN, got.run_id, Follow())]
    assert [event.WhichOneof("event") for event in events] == ["message", "stop_reason", "usage_statistics"]


async def test_a_failing_stream_tells_the_reason_and_then_fails():
    world = await World(LLMUnavailable("down")).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    events = world.runs.follow(ANN, admitted.run_id, Follow())
    seen = [(await anext(events)).stop_reason.stop_reason]
    with pytest.raises(LLMUnavailable):
        await anext(events)
    assert seen == [STOP.STOP_REASON_LLM_API_ERROR]


async def asked(world):
    """Wait until the model was asked."""
    while not world.models.prompts:  # noqa: ASYNC110
        await asyncio.sleep(0)


# Idempotency, busy conversations, cancellation


def user(text, otid=""):
    said = run_pb2.MessageCreate(role=message_pb2.MESSAGE_ROLE_USER, text=text, otid=otid)
    return run_pb2.InputMessage(message_create=said)


async def test_ten_sends_with_one_otid_are_one_run_with_one_answer():
    world = await World(answer(say("Hello."))).agent()
    send = send_of(messages=[user("hi", otid="o-1")])
    answers = await asyncio.gather(*(world.runs.send(ANN, send, SIGNED) for _ in range(10)))

    assert len({got.run_id for got in answers}) == 1
    assert {tuple(m.assistant_message.text for m in got.messages) for got in answers} == {("Hello.",)}
    assert len(world.models.prompts) == 1
    assert (await world.runs.send(ANN, send, SIGNED)).run_id == answers[0].run_id


async def test_one_key_with_two_bodies_is_a_conflict():
    world = await World().agent()
    await world.send("one", request_id="k")
    with pytest.raises(IdempotencyConflict):
        await world.send("two", request_id="k")


async def test_a_busy_conversation_refuses_and_names_the_run():
    gate = asyncio.Event()
    world = await World(gate, answer(say("first"))).agent()
    first = await world.runs.admit(ANN, send_of(), SIGNED)
    with pytest.raises(ConversationBusy) as caught:
        await world.send()
    assert caught.value.metadata["run_id"] == first.run_id
    gate.set()
    await world.runs.answer(ANN, first)


async def test_a_send_may_wait_for_its_turn():
    gate = asyncio.Event()
    world = await World(gate, answer(say("first")), answer(say("second"))).agent()
    first = await world.runs.admit(ANN, send_of("1"), SIGNED)
    second = asyncio.create_task(world.send("2", on_busy=run_pb2.ON_BUSY_WAIT))
    await asyncio.sleep(0)
    gate.set()
    assert [m.assistant_message.text for m in (await second).messages] == ["second"]
    assert world.texts()[-2:] == [("user", "2"), ("assistant", "second")]
    assert (await world.runs.answer(ANN, first)).stop_reason == STOP.STOP_REASON_END_TURN


async def test_a_send_may_interrupt():
    world = await World(asyncio.Event(), answer(say("never")), answer(say("second"))).agent()
    first = await world.runs.admit(ANN, send_of("1"), SIGNED)
    await asked(world)
    got = await world.send("2", on_busy=run_pb2.ON_BUSY_INTERRUPT)
    assert got.stop_reason == STOP.STOP_REASON_END_TURN
    assert (await world.store.get(ANN, first.run_id)).status == RunStatus.RUN_STATUS_CANCELLED


async def test_an_enqueued_run_begins_when_the_one_before_it_ends():
    gate = asyncio.Event()
    world = await World(gate, answer(say("first")), answer(say("second"))).agent()
    first = await world.runs.admit(ANN, send_of("1"), SIGNED)
    queued = await world.runs.admit(ANN, send_of("2", on_busy=run_pb2.ON_BUSY_ENQUEUE), SIGNED)
    gate.set()
    await world.runs.answer(ANN, first)
    await world.runner.dispatch()
    got = await world.runs.answer(ANN, replace(queued, active=world.runner.find(queued.run_id)))
    assert [m.assistant_message.text for m in got.messages] == ["second"]
    assert world.credentials.issued == [queued.run_id]


async def test_cancelling_reaches_the_model():
    world = await World(asyncio.Event(), answer(say("never"))).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await asked(world)
    record = await world.runs.cancel(ANN, admitted.run_id)

    assert (record.status, record.stop_reason) == (RunStatus.RUN_STATUS_CANCELLED, STOP.STOP_REASON_CANCELLED)
    assert world.models.cancelled == 1
    events = [event async for event in admitted.active.feed.follow()]
    assert [event.WhichOneof("event") for event in events] == ["stop_reason"]


async def test_cancelling_through_another_replica():
    world = await World(asyncio.Event(), answer(say("never"))).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await world.another().runs.cancel(ANN, admitted.run_id)
    await world.runner.look_for_cancelled()
    await asyncio.wait([admitted.active.task])
    assert (await world.store.get(ANN, admitted.run_id)).status == RunStatus.RUN_STATUS_CANCELLED


async def test_a_run_cancelled_before_it_began_asks_no_model():
    world = await World().agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    assert (await world.runs.cancel(ANN, admitted.run_id)).status == RunStatus.RUN_STATUS_CANCELLED
    assert world.models.prompts == []


# Crashes: another replica takes over


async def crash(world, admitted):
    """End the task of a run as a dying replica would: nothing is closed, the lease runs out."""
    admitted.active.task.cancel()
    await asyncio.wait([admitted.active.task])
    world.expire()


async def taken_over(world, run_id):
    await world.runner.dispatch()
    active = world.runner.find(run_id)
    await asyncio.wait([active.task])
    return active


async def test_a_crash_while_the_model_speaks_asks_it_again():
    world = await World(asyncio.Event(), answer(say("lost"))).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await asked(world)
    await crash(world, admitted)

    second = world.another(answer(say("Hello.")))
    active = await taken_over(second, admitted.run_id)

    assert world.texts() == [("user", "hi"), ("assistant", "Hello.")]
    assert active.feed.messages()[0].seq_id > 1_000_000
    assert second.credentials.issued == [admitted.run_id]
    assert (await world.runs.answer(ANN, replace(admitted, active=None))).stop_reason == STOP.STOP_REASON_END_TURN


@pytest.mark.parametrize(("idempotent", "text"), [(True, "again"), (False, UNKNOWN_OUTCOME)])
async def test_a_crash_between_checkpoint_and_commit_replays_what_the_model_said(idempotent, text):
    reached = asyncio.Event()

    async def hang(_):
        reached.set()
        await asyncio.Event().wait()

    world = await World(
        answer(call("pay")), tools=[tool("pay", idempotent=idempotent)], behaviours={"pay": hang}
    ).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await reached.wait()
    await crash(world, admitted)
    world.tools.behaviours["pay"] = lambda _: "again"

    second = world.another(answer(say("done")))
    await taken_over(second, admitted.run_id)

    assert world.texts() == [("user", "hi"), ("assistant", "pay"), ("tool", text), ("assistant", "done")]
    assert len(second.models.prompts) == 1
    assert len(world.tools.executed) == (2 if idempotent else 1)


async def test_a_crash_after_a_memory_edit_does_not_make_it_twice():
    script = (answer(call("memory_insert", {"label": "human", "new_string": "x"})), answer(say("ok")))
    world = await World(*script, tools=[tool("memory_insert", MEMORY)]).agent()
    world.memory.fail["commit_step"] = [ServiceUnavailable("gone")]
    closing, world.store.close = world.store.close, _down
    with pytest.raises(ServiceUnavailable):
        await world.send()
    world.store.close = closing
    world.expire()

    [run_id] = [run.new.id for run in world.store._runs.values()]
    await taken_over(world.another(answer(say("ok"))), run_id)
    assert world.memory.blocks[AGENT]["human"].value == "Bob\nx"
    assert world.texts() == [("user", "hi"), ("assistant", "memory_insert"), ("tool", "Bob\nx"), ("assistant", "ok")]


async def _down(*_):
    raise ServiceUnavailable("the database is away")


async def test_a_crash_after_the_last_commit_only_closes():
    world = await World(answer(say("Hello."))).agent()
    closing, world.store.close = world.store.close, _down
    got = await world.send()
    world.store.close = closing
    assert (await world.store.get(ANN, got.run_id)).active
    world.expire()

    second = world.another()
    await taken_over(second, got.run_id)

    assert second.models.prompts == []
    record = await world.store.get(ANN, got.run_id)
    assert (record.status, record.stop_reason) == (RunStatus.RUN_STATUS_COMPLETED, STOP.STOP_REASON_END_TURN)
    assert world.texts() == [("user", "hi"), ("assistant", "Hello.")]


async def test_an_owner_that_was_paused_writes_nothing_more():
    gate = asyncio.Event()
    world = await World(gate, answer(say("zombie"))).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await asked(world)
    world.expire()
    await taken_over(world.another(answer(say("Hello."))), admitted.run_id)

    gate.set()
    with pytest.raises(Fenced):
        await world.runs.answer(ANN, admitted)
    assert world.texts() == [("user", "hi"), ("assistant", "Hello.")]


async def test_a_lost_lease_stops_the_run():
    world = await World(asyncio.Event(), answer(say("zombie"))).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    world.expire()
    await world.store.claim_due(world.another().runner.lease, 10)
    await world.runner.renew()
    with pytest.raises(Fenced):
        await world.runs.answer(ANN, admitted)


async def test_a_restored_database_does_not_lock_an_agent_out():
    world = await World(answer(say("Hello."))).agent()
    world.memory.thread(AGENT).fence = 41
    assert (await world.send()).stop_reason == STOP.STOP_REASON_END_TURN
    assert world.memory.thread(AGENT).fence == 42


async def test_a_run_that_was_cancelled_before_its_take_over_ends_cancelled():
    world = await World(asyncio.Event(), answer(say("x"))).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await world.store.request_cancel(ANN, admitted.run_id)
    await crash(world, admitted)
    await taken_over(world.another(), admitted.run_id)
    assert (await world.store.get(ANN, admitted.run_id)).status == RunStatus.RUN_STATUS_CANCELLED


# Approvals and tools of the client


def approval(call_id="call-1", *, approve=True, reason=""):
    given = message_pb2.ApprovalReturn(tool_call_id=call_id, approve=approve, reason=reason)
    return run_pb2.InputMessage(
        approval=run_pb2.ApprovalCreate(approvals=[message_pb2.Approval(approval_return=given)])
    )


async def test_a_gated_call_waits_and_is_executed_once_approved():
    world = await World(answer(call("pay")), answer(say("paid")), tools=[tool("pay")]).agent(approve=["pay"])
    asked = await world.send()
    assert (asked.stop_reason, shown(asked)) == (STOP.STOP_REASON_REQUIRES_APPROVAL, ["approval_request_message"])
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


# Rules and compaction


async def test_a_terminal_tool_ends_the_run():
    rule = tool_rule_pb2.ToolRule(exit_loop=tool_rule_pb2.TerminalToolRule(tool_name="roll"))
    world = await World(answer(call("roll")), tools=[tool("roll")]).agent(rules=[rule])
    assert (await world.send()).stop_reason == STOP.STOP_REASON_TOOL_RULE


async def test_a_first_tool_is_forced():
    rule = tool_rule_pb2.ToolRule(run_first=tool_rule_pb2.InitToolRule(tool_name="roll", args='{"sides": 3}'))
    seen = {"roll": lambda given: str(given["sides"])}
    world = await World(answer(call("roll", {"sides": 9})), tools=[tool("roll"), tool("x")], behaviours=seen).agent(
        rules=[rule]
    )
    got = await world.send()
    assert returned(got) == ("3", False)
    first, second = world.models.prompts
    assert (first.required, first.forced_tool, second.required) == (True, "roll", False)


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
    assert (summary.purpose, last.purpose) == ("summary", "step")
    assert shown(got) == ["summary_message", "assistant_message"]
    assert got.messages[0].summary_message.summary == "The summary."
    first = Message.FromString(last.messages[0])
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
    assert got.stop_reason == STOP.STOP_REASON_END_TURN
    kept = Message.FromString(world.models.prompts[-1].messages[0])
    assert "earlier messages have left the context" in kept.parts[0].text.text
