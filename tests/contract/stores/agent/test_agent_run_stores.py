"""Runs in PostgreSQL and their twin in memory keep the same promises."""

import asyncio
from dataclasses import replace

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from letta.agent.v1 import agent_pb2, run_pb2, step_pb2, stored_pb2
from letta.common.v1 import usage_pb2
from letta_agent.domain.agents.records import StoredAgent
from letta_agent.domain.journal.records import (
    AdmissionOutcome,
    FreeSlots,
    HeldCalls,
    LeaseTerms,
    ListRunsRequest,
    ListStepsRequest,
    NewRun,
    RunEnd,
    RunKey,
    StepSummary,
    StoredEvent,
)
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.errors import Fenced, RunNotFound, StepNotFound
from letta_common.values.ids import new_id
from letta_common.values.paging import Page

COMPLETED, FAILED, CANCELLED = 3, 4, 5
END_TURN = usage_pb2.STOP_REASON_END_TURN
LEASE, EXPIRED = LeaseTerms("me", 60_000), LeaseTerms("gone", -1_000)
NEXT = LeaseTerms("next", 60_000)


@pytest.fixture
async def store(rooms):
    return Store(rooms)


class Store:
    """RunStore and QueueStore in one, and the agents that runs are sent to."""

    def __init__(self, rooms):
        self._rooms, self.agents = rooms, rooms.agents

    def __getattr__(self, name):
        return getattr(self._rooms.runs, name, None) or getattr(self._rooms.queue, name)


@pytest.fixture
async def agent_id(store, ann):
    state = agent_pb2.Agent(id=new_id("agent"), name="a", model="m/x")
    now = SystemClock().now()
    state.created_at.FromDatetime(now)
    state.updated_at.FromDatetime(now)
    await store.agents.create(ann, StoredAgent(state.id, state, ("tool-1", "tool-2"), b"sealed"))
    return state.id


def run_of(agent_id, **changes):
    given = NewRun(
        id=new_id("run"),
        agent_id=agent_id,
        conversation_id=agent_id,
        key="",
        request_hash=b"h",
        request=run_pb2.RunRequest(input_text="hi").SerializeToString(),
        input=stored_pb2.StoredInput().SerializeToString(),
    )
    return replace(given, **changes)


def held_of(actor, run, fence):
    return RunKey(actor.organization_id, run.agent_id, run.conversation_id, run.id, fence)


def step_of(index, **changes):
    step = StepSummary(
        step_index=index,
        id=new_id("step"),
        model="m/x",
        provider_type="m",
        context_window=100,
        usage=usage_pb2.TokenUsage(prompt_tokens=10, completion_tokens=2, cached_input_tokens=1),
        stop_reason=0,
        status=2,
        started_ns=1,
        step_ns=2,
        llm_started_ns=3,
        llm_ns=4,
        tool_ns=5,
        tools_used=("a", "b"),
    )
    return replace(step, **changes)


async def admitted(store, actor, agent_id, lease=LEASE, **changes):
    run = run_of(agent_id, **changes)
    admission = await store.admit(actor, run, lease)
    assert admission.outcome is AdmissionOutcome.CLAIMED
    return held_of(actor, run, admission.fence)


async def claim(store, actor):
    """Claim what is due and keep what is the actor's: others use the same database."""
    claimed = await store.claim_due(NEXT, FreeSlots(10_000, 10_000))
    return [job for job in claimed if job.actor.organization_id == actor.organization_id]


async def test_admission_claims_and_returns_the_agent(store, ann, agent_id):
    admission = await store.admit(ann, run_of(agent_id), LEASE)

    assert (admission.outcome, admission.fence) == (AdmissionOutcome.CLAIMED, 1)
    assert admission.definition.state.id == agent_id
    assert (admission.definition.tool_ids, admission.definition.secrets) == (("tool-1", "tool-2"), b"sealed")


async def test_an_unknown_agent_is_refused(store, ann):
    admission = await store.admit(ann, run_of(new_id("agent")), LEASE)
    assert admission.outcome is AdmissionOutcome.NO_AGENT


async def test_another_tenants_agent_is_unknown(store, ann, agent_id):
    bob = Actor(new_id("org"), new_id("user"))
    assert (await store.admit(bob, run_of(agent_id), LEASE)).outcome is AdmissionOutcome.NO_AGENT


async def test_an_unknown_conversation_is_refused(store, ann, agent_id):
    admission = await store.admit(ann, run_of(agent_id, conversation_id=new_id("conv")), LEASE)
    assert admission.outcome is AdmissionOutcome.NO_CONVERSATION


async def test_a_second_run_finds_the_conversation_busy(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    admission = await store.admit(ann, run_of(agent_id), LEASE)
    assert (admission.outcome, admission.run_id) == (AdmissionOutcome.BUSY, held.run_id)


async def test_a_dead_owners_run_is_finished_before_a_new_one(store, ann, agent_id):
    held = await admitted(store, ann, agent_id, EXPIRED)
    assert (await store.admit(ann, run_of(agent_id), LEASE)).run_id == held.run_id


async def test_the_same_key_is_the_same_run(store, ann, agent_id):
    held = await admitted(store, ann, agent_id, key="k", request_hash=b"1")
    again = await store.admit(ann, run_of(agent_id, key="k", request_hash=b"2"), LEASE)
    assert (again.outcome, again.run_id, again.request_hash) == (AdmissionOutcome.KNOWN, held.run_id, b"1")


async def test_ten_at_once_with_one_key_are_one_run(store, ann, agent_id):
    runs = [run_of(agent_id, key="k") for _ in range(10)]
    admissions = await asyncio.gather(*(store.admit(ann, run, LEASE) for run in runs))

    assert [a.outcome for a in admissions].count(AdmissionOutcome.CLAIMED) == 1
    assert {a.outcome for a in admissions} == {AdmissionOutcome.CLAIMED, AdmissionOutcome.KNOWN}
    assert len({a.run_id for a in admissions}) == 1


async def test_ten_at_once_without_a_key_are_one_claim(store, ann, agent_id):
    admissions = await asyncio.gather(*(store.admit(ann, run_of(agent_id), LEASE) for _ in range(10)))
    assert sorted(a.outcome.value for a in admissions) == ["busy"] * 9 + ["claimed"]


async def test_closing_frees_the_conversation_and_raises_the_next_fence(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    assert not await store.close(held, RunEnd(COMPLETED, END_TURN, (step_of(0), step_of(1)), context_tokens=77))

    record = await store.get(ann, held.run_id)
    assert (record.status, record.stop_reason, record.step_count) == (COMPLETED, END_TURN, 2)
    assert record.usage == usage_pb2.TokenUsage(prompt_tokens=20, completion_tokens=4, cached_input_tokens=2)
    admission = await store.admit(ann, run_of(agent_id), LEASE)
    assert (admission.outcome, admission.fence) == (AdmissionOutcome.CLAIMED, 2)
    assert admission.definition.context_tokens == 77


async def test_closing_twice_changes_nothing(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    await store.close(held, RunEnd(COMPLETED, END_TURN))
    await store.close(held, RunEnd(FAILED, usage_pb2.STOP_REASON_ERROR, error='{"message": "x"}'))
    assert (await store.get(ann, held.run_id)).status == COMPLETED


async def test_a_zombie_can_neither_checkpoint_nor_close(store, ann, agent_id):
    zombie = await admitted(store, ann, agent_id, EXPIRED)
    [job] = await claim(store, ann)

    with pytest.raises(Fenced):
        await store.checkpoint(zombie, 0, stored_pb2.StoredStep(step_id=new_id("step")))
    await store.close(zombie, RunEnd(COMPLETED, END_TURN))

    assert (await store.get(ann, zombie.run_id)).active
    assert job.held.fence == zombie.fence + 1


async def test_a_take_over_brings_all_that_is_needed(store, ann, agent_id):
    given = stored_pb2.StoredInput()
    given.messages.add(id="message-1")
    held = await admitted(store, ann, agent_id, EXPIRED, input=given.SerializeToString(), background=True)
    step = stored_pb2.StoredStep(step_id="step-1", return_id="message-2")
    await store.checkpoint(held, 0, step)

    [job] = await claim(store, ann)

    assert (job.actor, job.claims, job.background) == (ann, 1, True)
    assert (job.request.input_text, job.input) == ("hi", given)
    assert job.definition.tool_ids == ("tool-1", "tool-2")
    assert await store.get_checkpoints(job.held) == {0: step}
    assert await claim(store, ann) == []


async def test_a_live_lease_is_not_taken(store, ann, agent_id):
    await admitted(store, ann, agent_id)
    assert await claim(store, ann) == []


async def test_the_first_checkpoint_of_a_step_stays(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    first, second = stored_pb2.StoredStep(step_id="step-1"), stored_pb2.StoredStep(step_id="step-2")
    await store.checkpoint(held, 0, first)
    await store.checkpoint(held, 0, second)
    assert await store.get_checkpoints(held) == {0: first}


async def test_leases_are_renewed_until_they_are_lost(store, ann, agent_id):
    held = await admitted(store, ann, agent_id, LeaseTerms("me", -1_000))
    assert (await store.renew([held], LEASE)).kept == {held.run_id}
    assert await claim(store, ann) == []

    await store.renew([held], LeaseTerms("me", -1_000))
    await claim(store, ann)
    assert (await store.renew([held], LEASE)).kept == frozenset()


async def test_a_fence_rises_above_what_memory_has_seen(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    assert await store.raise_fence(held, 41) == 42
    assert await store.raise_fence(held, 50) is None
    assert await store.raise_fence(replace(held, fence=42), 3) == 43


async def test_enqueued_runs_begin_in_order(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    waiting = [run_of(agent_id, most_waiting=10) for _ in range(2)]
    for run in waiting:
        assert (await store.admit(ann, run, LEASE)).outcome is AdmissionOutcome.QUEUED

    assert await store.close(held, RunEnd(COMPLETED, END_TURN))
    [first] = await claim(store, ann)
    assert (first.held.run_id, first.claims) == (waiting[0].id, 0)
    assert await claim(store, ann) == []
    assert await store.close(first.held, RunEnd(COMPLETED, END_TURN))
    [second] = await claim(store, ann)
    assert second.held.run_id == waiting[1].id
    assert not await store.close(second.held, RunEnd(COMPLETED, END_TURN))


async def test_a_waiting_run_keeps_its_place(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    await store.admit(ann, run_of(agent_id, most_waiting=10), LEASE)
    await store.close(held, RunEnd(COMPLETED, END_TURN))
    assert (await store.admit(ann, run_of(agent_id), LEASE)).outcome is AdmissionOutcome.BUSY


async def test_cancelling_reaches_the_owner(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    assert (await store.list_wishes([held])).cancelled == frozenset()
    assert (await store.request_cancel(ann, held.run_id)).active
    assert (await store.list_wishes([held])).cancelled == {held.run_id}


async def test_a_cancelled_run_that_waits_ends_at_once(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    run = run_of(agent_id, most_waiting=10)
    await store.admit(ann, run, LEASE)

    assert (await store.request_cancel(ann, run.id)).status == CANCELLED
    assert not await store.close(held, RunEnd(COMPLETED, END_TURN))
    assert await claim(store, ann) == []


async def test_a_request_to_cancel_survives_the_owner(store, ann, agent_id):
    held = await admitted(store, ann, agent_id, EXPIRED)
    await store.request_cancel(ann, held.run_id)
    [job] = await claim(store, ann)
    assert job.cancel_requested


async def test_waiting_approvals_are_answered_first(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    pending = HeldCalls("message-1", ("call-1", "call-2"), b"shown")
    await store.close(held, RunEnd(COMPLETED, usage_pb2.STOP_REASON_REQUIRES_APPROVAL, pending=pending))

    refused = await store.admit(ann, run_of(agent_id), LEASE)
    wrong = await store.admit(ann, run_of(agent_id, approved_calls=("call-9",)), LEASE)
    right = await store.admit(ann, run_of(agent_id, approved_calls=("call-2", "call-1")), LEASE)

    assert (refused.outcome, refused.pending.message_id) == (AdmissionOutcome.PENDING, "message-1")
    assert (wrong.outcome, wrong.pending.call_ids) == (AdmissionOutcome.NOT_PENDING, ("call-1", "call-2"))
    assert right.outcome is AdmissionOutcome.CLAIMED


async def test_an_answer_to_nothing_is_refused(store, ann, agent_id):
    refused = await store.admit(ann, run_of(agent_id, approved_calls=("call-1",)), LEASE)
    assert (refused.outcome, refused.pending) == (AdmissionOutcome.NOT_PENDING, None)
    held = await admitted(store, ann, agent_id)
    await store.close(held, RunEnd(COMPLETED, END_TURN))
    assert (
        await store.admit(ann, run_of(agent_id, approved_calls=("c",)), LEASE)
    ).outcome is AdmissionOutcome.NOT_PENDING


async def test_runs_are_listed_by_page_and_filter(store, ann, agent_id):
    ids = []
    for end in (RunEnd(COMPLETED, END_TURN), RunEnd(FAILED, usage_pb2.STOP_REASON_ERROR), RunEnd(COMPLETED, END_TURN)):
        held = await admitted(store, ann, agent_id)
        await store.close(held, end)
        ids.append(held.run_id)

    async def found(filters=None, **page):
        return [record.id for record in await store.list_runs(ann, filters or ListRunsRequest(), Page(**page))]

    assert await found() == ids[::-1]
    assert await found(limit=2) == [ids[2], ids[1]]
    assert await found(after=ids[1]) == [ids[0]]
    assert await found(before=ids[1]) == [ids[2]]
    assert await found(ascending=True) == ids
    assert await found(ListRunsRequest(statuses=(FAILED,))) == [ids[1]]
    assert await found(ListRunsRequest(stop_reason=END_TURN, agent_ids=(agent_id,))) == [ids[2], ids[0]]
    assert await found(ListRunsRequest(conversation_id="conv-x")) == []
    assert await found(ListRunsRequest(background=True)) == []
    assert await store.list_runs(Actor(new_id("org"), "user-b"), ListRunsRequest(), Page()) == []


async def test_another_tenants_run_does_not_exist(store, ann, agent_id):
    held = await admitted(store, ann, agent_id, key="k")
    bob = Actor(new_id("org"), new_id("user"))
    for read in (store.get(bob, held.run_id), store.request_cancel(bob, held.run_id), store.delete(bob, held.run_id)):
        with pytest.raises(RunNotFound):
            await read
    with pytest.raises(RunNotFound):
        await store.get_by_key(bob, agent_id, "k")
    assert await store.get_by_key(ann, agent_id, "k") == held.run_id


async def test_only_a_run_that_ended_can_be_deleted(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    assert not await store.delete(ann, held.run_id)
    await store.close(held, RunEnd(COMPLETED, END_TURN, (step_of(0),)))
    assert await store.delete(ann, held.run_id)
    with pytest.raises(RunNotFound):
        await store.get(ann, held.run_id)


async def test_steps_are_kept_and_judged(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    steps = (step_of(0), step_of(1, stop_reason=END_TURN, model="other/y", warnings=("a", "b")))
    await store.close(held, RunEnd(COMPLETED, END_TURN, steps))

    async def found(**wanted):
        return [step.id for step in await store.list_steps(ann, ListStepsRequest(**wanted), Page())]

    first, second = sorted(
        await store.list_steps(ann, ListStepsRequest(run_id=held.run_id), Page()), key=lambda step: step.step_index
    )
    assert (first.id, first.organization_id, first.agent_id) == (steps[0].id, ann.organization_id, agent_id)
    assert (first.run_id, first.model_handle, first.context_window_limit) == (held.run_id, "m/x", 100)
    assert (first.prompt_tokens, first.total_tokens, first.cached_input_tokens) == (10, 12, 1)
    assert (first.duration.nanos, first.llm_request_duration.nanos, first.tool_execution_duration.nanos) == (2, 4, 5)
    assert (first.started_at.nanos, first.tools_used, first.status) == (1, ["a", "b"], 2)
    assert (second.stop_reason, second.provider_name, second.model) == (END_TURN, "other", "y")
    assert (second.step_index, second.warnings) == (1, ["a", "b"])
    assert await store.get_step(ann, steps[0].id) == first
    metrics = await store.get_step_metrics(ann, steps[0].id)
    assert (metrics.id, metrics.run_id, metrics.llm_request_started_at.nanos) == (first.id, held.run_id, 3)
    assert (metrics.duration, metrics.started_at) == (first.duration, first.started_at)
    assert await found(model="y") == [second.id]
    judged = await store.set_feedback(ann, first.id, 1, ["good"])
    assert (judged.feedback, judged.tags) == (1, ["good"])
    assert await found(has_feedback=True) == [first.id]
    assert await found(tags=("good",)) == [first.id]
    assert first.id in await found(start_date=first.created_at, end_date=first.created_at)
    assert await found(end_date=Timestamp(seconds=1)) == []
    with pytest.raises(StepNotFound):
        await store.get_step(Actor(new_id("org"), "user-b"), steps[0].id)


async def test_events_are_kept_once_and_read_in_order(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    events = [StoredEvent(ann.organization_id, held.run_id, seq, str(seq).encode()) for seq in (2, 1, 3)]
    await store.append_events(events)
    await store.append_events([replace(events[0], event=b"again")])

    found = await store.list_events(ann, held.run_id, 0, 10)
    assert [(event.seq_id, event.event) for event in found] == [(1, b"1"), (2, b"2"), (3, b"3")]
    assert [event.seq_id for event in await store.list_events(ann, held.run_id, 1, 1)] == [2]
    assert await store.list_events(Actor(new_id("org"), "user-b"), held.run_id, 0, 10) == []


async def test_a_follower_is_known_for_a_while_to_whoever_works_on_the_run(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    await store.note_follower(Actor(new_id("org"), "user-b"), held.run_id, 60_000)
    assert (await store.list_wishes([held])).followed == frozenset()
    await store.note_follower(ann, held.run_id, 1)
    await store.note_follower(ann, held.run_id, 60_000)
    await store.note_follower(ann, held.run_id, 60_000)
    assert (await store.list_wishes([held])).followed == {held.run_id}
    assert (await store.list_wishes([held])).cancelled == frozenset()


async def test_the_step_that_failed_is_stored_with_what_the_run_failed_with(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    steps = (step_of(0), step_of(1, status=3, stop_reason=usage_pb2.STOP_REASON_LLM_API_ERROR))
    await store.checkpoint(held, 1, stored_pb2.StoredStep(step_id=steps[1].id))
    told = '{"error_type": "llm_rate_limit", "message": "wait a moment", "run_id": "run-1"}'
    await store.close(held, RunEnd(FAILED, usage_pb2.STOP_REASON_LLM_API_ERROR, steps, error=told))

    first, second = [await store.get_step(ann, step.id) for step in steps]
    assert (first.error_type, first.HasField("error_data"), first.status) == ("", False, 2)
    assert (second.error_type, second.status) == ("llm_rate_limit", 3)
    assert second.error_data == step_pb2.StepError(message="wait a moment", run_id=held.run_id)
    assert (await store.get(ann, held.run_id)).error == told


async def test_a_run_that_failed_without_a_word_has_steps_without_words(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    step = step_of(0, status=3)
    await store.close(held, RunEnd(FAILED, usage_pb2.STOP_REASON_ERROR, (step,)))
    assert not (await store.get_step(ann, step.id)).HasField("error_data")


async def test_nobody_takes_over_the_run_of_an_agent_that_is_removed(store, ann, agent_id):
    held = await admitted(store, ann, agent_id, EXPIRED)
    await store.agents.begin_removal(ann, agent_id)
    assert await claim(store, ann) == []
    assert (await store.get(ann, held.run_id)).claims == 0

    await store.agents.delete(ann, agent_id)
    assert await claim(store, ann) == []
    with pytest.raises(RunNotFound):
        await store.get(ann, held.run_id)


async def test_nobody_begins_what_waits_for_an_agent_that_is_removed(store, ann, agent_id):
    held = await admitted(store, ann, agent_id)
    await store.admit(ann, run_of(agent_id, most_waiting=10), LEASE)
    await store.agents.begin_removal(ann, agent_id)
    await store.close(held, RunEnd(COMPLETED, END_TURN))
    assert await claim(store, ann) == []


async def test_each_take_over_is_counted(store, ann, agent_id):
    held = await admitted(store, ann, agent_id, EXPIRED)
    for number in (1, 2, 3):
        [job] = await claim(store, ann)
        assert job.claims == number
        await store.renew([job.held], LeaseTerms("next", -1_000))
    assert (await store.get(ann, held.run_id)).claims == 3
