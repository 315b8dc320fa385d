"""What leaves a context that is too large, and what happens when a vendor's numbers are not ours."""

import asyncio
from itertools import pairwise

import pytest

from letta.agent.v1 import agent_pb2
from letta.common.v1 import message_pb2
from letta.common.v1.message_pb2 import COMPACTION_TRIGGER_POST_STEP, CompactionTrigger
from letta.llm.v1.generation_service_pb2 import CALL_PURPOSE_STEP, CALL_PURPOSE_SUMMARY
from letta.tools.v1.tool_pb2 import FunctionSchema
from letta_agent.domain.context.compactor import CompactionRequest, corrected
from letta_agent.domain.context.working import message_tokens
from letta_agent.domain.journal.records import ListStepsRequest, RunStatus
from letta_agent.domain.loop.compaction_run import COMPACTION
from letta_agent.domain.peers.memory import Message
from letta_agent.domain.runs.runs import SendCommand
from letta_common.errors import (
    ContextWindowExceeded,
    ConversationBusy,
    IdempotencyConflict,
    LLMUnavailable,
    NothingToCompact,
    PendingApproval,
)
from letta_common.values.paging import Page
from tests.fakes.agent.peers import answer, call, say, tool
from tests.fakes.agent.world import AGENT, ANN, SIGNED, STOP, World, asked, send_of

ALL = agent_pb2.CompactionSettings(mode=agent_pb2.COMPACTION_MODE_ALL)


async def talked(turns=6, *script, **options):
    """Make an agent and exchange some messages with it."""
    world = await World(**options.pop("world", {})).agent(**options)
    for turn in range(turns):
        await world.send(f"turn {turn} " + "word " * 20)
    world.models.script = list(script)
    return world


def compaction(settings=None, request_id=""):
    way = settings or agent_pb2.CompactionSettings()
    request = send_of("").request
    request.ClearField("input")
    request.include_compaction_messages = True
    return SendCommand(AGENT, AGENT, request, request_id, run_type=COMPACTION, compaction=way)


def in_context(world):
    return [Message.FromString(data) for data in world.memory.thread(AGENT).window]


def tokens_of(messages):
    return sum(message_tokens(message, message.ByteSize()) for message in messages)


async def refused_then_answered(world, *errors):
    """Send a message whose prompt the vendor refuses, for these reasons, before it answers; return the sizes asked."""
    script = []
    for error in errors:
        script += [error, answer(say("The summary."))]
    world.models.script = [*script, answer(say("ok"))]
    before = len(world.models.prompts)
    got = await world.send("now")
    steps = [prompt for prompt in world.models.prompts[before:] if prompt.attribution.purpose == CALL_PURPOSE_STEP]
    return got, [tokens_of(prompt.messages) for prompt in steps]


def triggers(world):
    return [message.compaction_stats.trigger for message in in_context(world) if message.HasField("compaction_stats")]


async def test_a_prompt_that_a_vendor_finds_too_large_shrinks_by_the_vendors_numbers():
    world = await talked(20, window=1_000_000)
    error = ContextWindowExceeded("too long", tokens="40000", context_window="10000")
    got, (before, after) = await refused_then_answered(world, error)

    assert got.stop_reason.stop_reason == STOP.STOP_REASON_END_TURN
    assert after * (40_000 / before) <= 10_000
    assert len(world.models.prompts[-1].messages) > 1


async def test_without_numbers_a_refusal_means_that_the_window_is_full():
    world = await talked(20, window=1_000_000)
    got, (before, after) = await refused_then_answered(world, ContextWindowExceeded("too long"))
    assert got.stop_reason.stop_reason == STOP.STOP_REASON_END_TURN
    assert 0 < after <= before * 0.72
    assert triggers(world) == [CompactionTrigger.COMPACTION_TRIGGER_CONTEXT_WINDOW_EXCEEDED]


async def test_each_further_refusal_evicts_more():
    world = await talked(30, window=1_000_000)
    error = ContextWindowExceeded("still too long")
    _, sizes = await refused_then_answered(world, error, error, error)
    assert len(sizes) == 4
    assert all(after <= before for before, after in pairwise(sizes))
    assert sizes[-1] < sizes[0] / 10


async def test_a_prompt_that_never_fits_fails_with_a_typed_error_after_a_few_tries():
    world = await talked(10)

    async def generate(prompt):
        if prompt.attribution.purpose == CALL_PURPOSE_STEP:
            raise ContextWindowExceeded("never")
        return answer(say("The summary."))

    steps = []
    world.models.generate = lambda prompt, _: (steps.append(prompt.attribution.purpose), generate(prompt))[1]
    with pytest.raises(ContextWindowExceeded) as failed:
        await world.send("now")
    assert steps.count(CALL_PURPOSE_STEP) == 4
    record = await world.store.get(ANN, failed.value.metadata["run_id"])
    assert record.stop_reason == STOP.STOP_REASON_CONTEXT_WINDOW_OVERFLOW_IN_SYSTEM_PROMPT
    [step] = await world.store.list_steps(ANN, ListStepsRequest(run_id=record.id), Page())
    assert step.error_type == "context_window_exceeded"


@pytest.mark.parametrize(
    ("told", "window", "scale"),
    [
        ({"tokens": "400", "context_window": "300"}, 300, 4.0),
        ({"tokens": "400", "context_window": "90000"}, 1_000, 4.0),
        ({"context_window": "500"}, 500, 5.0),
        ({}, 1_000, 10.0),
        ({"tokens": "10"}, 1_000, 1.0),
        ({"tokens": "many", "context_window": "-3"}, 1_000, 10.0),
    ],
)
def test_a_vendors_words_correct_the_estimate(told, window, scale):
    full = CompactionRequest(agent_pb2.Agent(), (), 0, 1_000, "m/x", COMPACTION_TRIGGER_POST_STEP)
    found = corrected(full, told, estimate=100)
    assert (found.window, found.scale) == (window, scale)


async def test_a_context_is_compacted_by_hand():
    world = await talked(6, answer(say("The summary.")))
    done = await world.runs.compact(ANN, compaction(), SIGNED)

    assert (done.summary, done.before) == ("The summary.", 13)
    assert done.after == len(in_context(world)) + 1 < done.before
    assert in_context(world)[0].role == message_pb2.MESSAGE_ROLE_SUMMARY
    assert triggers(world) == [CompactionTrigger.COMPACTION_TRIGGER_MANUAL]
    record = await world.store.get(ANN, done.run_id)
    assert (record.run_type, record.status, record.stop_reason) == (
        COMPACTION,
        RunStatus.RUN_STATUS_COMPLETED,
        STOP.STOP_REASON_END_TURN,
    )
    await world.send("after")
    assert world.memory.texts(AGENT)[-2][1] == "after"
    assert len(world.memory.texts(AGENT)) == 1 + 12 + 1 + 2


async def test_texts_of_every_script_count_by_their_bytes():
    """Prompt, tools and summary, as messages do: a text in another script than the Latin one has more tokens."""

    async def counted(letter):
        tools = {"tools": [tool("find", description=letter)]}
        tools["tools"][0].json_schema.MergeFrom(FunctionSchema(description=letter * 800))
        world = await talked(6, answer(say(letter * 400)), world=tools)
        command = compaction()
        command.request.override_system = letter * 4_000
        full = [Message.FromString(data) for data in world.memory.thread(AGENT).messages[1:]]  # behind the prompt
        await world.runs.compact(ANN, command, SIGNED)
        summary, *kept = in_context(world)
        # Of the messages nothing counts here: their moments are of this run and have no fixed size.
        before, after = tokens_of(full), tokens_of(kept)
        stats = summary.compaction_stats
        return stats.context_tokens_before - before, stats.context_tokens_after - after

    (latin_before, latin_after), (before, after) = await counted("x"), await counted("\u044f")
    assert before - latin_before == (4_000 + 800) // 4
    assert after - latin_after == (4_000 + 800 + 400) // 4


async def test_the_whole_context_is_compacted_when_asked():
    world = await talked(2, answer(say("All of it.")))
    done = await world.runs.compact(ANN, compaction(ALL), SIGNED)
    assert (done.before, done.after) == (5, 2)
    assert len(in_context(world)) == 1


async def test_the_settings_of_a_request_add_to_the_agents():
    world = await talked(4, answer(say("Brief.")))
    settings = agent_pb2.CompactionSettings(model="other/model", prompt="Be brief.", clip_chars=3)
    done = await world.runs.compact(ANN, compaction(settings), SIGNED)
    assert done.summary == "Bri"
    prompt = world.models.prompts[-1]
    assert (prompt.model, prompt.system, prompt.attribution.purpose) == (
        "other/model",
        "Be brief.",
        CALL_PURPOSE_SUMMARY,
    )


async def test_the_same_key_compacts_once():
    world = await talked(6, answer(say("The summary.")))
    first = await world.runs.compact(ANN, compaction(request_id="k"), SIGNED)
    asked_before = len(world.models.prompts)
    again = await world.runs.compact(ANN, compaction(request_id="k"), SIGNED)
    assert again == first
    assert len(world.models.prompts) == asked_before
    with pytest.raises(IdempotencyConflict):
        await world.runs.compact(ANN, compaction(ALL, request_id="k"), SIGNED)


@pytest.mark.parametrize("turns", [0, 1])
async def test_a_small_context_is_left_alone(turns):
    world = await talked(turns)
    with pytest.raises(NothingToCompact) as refused:
        await world.runs.compact(ANN, compaction(), SIGNED)
    assert world.memory.thread(AGENT).window is None
    record = await world.store.get(ANN, refused.value.metadata["run_id"])
    assert record.status == RunStatus.RUN_STATUS_FAILED
    await world.send("goes on")


async def test_a_failing_summarizer_still_compacts():
    world = await talked(6, LLMUnavailable("down"))
    done = await world.runs.compact(ANN, compaction(), SIGNED)
    assert "earlier messages have left the context" in done.summary


async def test_nothing_is_compacted_under_a_run_or_over_a_question():
    world = await World(asyncio.Event()).agent()
    held = await world.runs.admit(ANN, send_of(), SIGNED)
    await asked(world)
    with pytest.raises(ConversationBusy):
        await world.runs.compact(ANN, compaction(), SIGNED)
    await world.runs.cancel(ANN, held.run_id)

    waits = await World(answer(call("pay")), tools=[tool("pay")]).agent(approve=["pay"])
    await waits.send()
    with pytest.raises(PendingApproval):
        await waits.runs.compact(ANN, compaction(), SIGNED)


async def test_a_compaction_is_taken_over():
    world = await talked(6, asyncio.Event())
    before = len(world.models.prompts)
    admitted = await world.runs.admit(ANN, compaction(), SIGNED)
    while len(world.models.prompts) == before:  # noqa: ASYNC110
        await asyncio.sleep(0)
    admitted.active.task.cancel()
    await asyncio.wait([admitted.active.task])
    world.expire()

    second = world.another(answer(say("The summary.")))
    await second.runner.dispatch()
    await asyncio.wait([second.runner.find(admitted.run_id).task])
    assert (await world.store.get(ANN, admitted.run_id)).status == RunStatus.RUN_STATUS_COMPLETED
    assert in_context(world)[0].run_id == admitted.run_id


async def test_a_compaction_that_was_committed_is_not_made_again():
    world = await talked(6, answer(say("The summary.")))

    async def lost(*_):
        raise LLMUnavailable("the database is away")

    closing, world.store.close = world.store.close, lost
    done = await world.runs.compact(ANN, compaction(), SIGNED)
    world.store.close = closing
    world.expire()
    second = world.another()
    await second.runner.dispatch()
    await asyncio.wait([second.runner.find(done.run_id).task])
    assert second.models.prompts == []
    assert (await world.store.get(ANN, done.run_id)).status == RunStatus.RUN_STATUS_COMPLETED


async def test_a_forgetful_agent_keeps_nothing_in_context_after_a_run():
    world = await World(answer(call("roll")), answer(say("Six.")), tools=[tool("roll")]).agent(forgetful=True)
    await world.send("roll")
    context = await world.memory.context(AGENT, AGENT)
    assert len(context.messages) == 1
    assert context.message_count == 5

    await world.send("again")
    [only] = world.models.prompts[-1].messages
    assert only.parts[0].text.text == "again"


async def test_a_forgetful_agent_that_waits_for_approval_keeps_its_context():
    world = await World(answer(call("pay")), tools=[tool("pay")]).agent(forgetful=True, approve=["pay"])
    await world.send("pay")
    assert len((await world.memory.context(AGENT, AGENT)).messages) == 3
