"""Conversations in PostgreSQL and their twins in memory keep the same promises."""

import asyncio
from datetime import timedelta

import pytest

from letta.common.v1 import usage_pb2
from letta_agent.domain.agents.conversations import Conversation, ListConversationsRequest
from letta_agent.domain.agents.records import Stage
from letta_agent.domain.journal.records import AdmissionOutcome, FreeSlots, LeaseTerms, RunEnd, RunKey
from letta_common.clock import SystemClock
from letta_common.errors import ConversationNotFound
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from tests.contract.stores.agent.conftest import agent_of, conversation_of, new_run

LEASE = LeaseTerms("me", 60_000)
MAKING, READY, REMOVING = Stage.MAKING, Stage.READY, Stage.REMOVING


@pytest.fixture
async def agent_id(rooms, ann):
    agent = agent_of(model="m/x")
    await rooms.agents.create(ann, agent)
    return agent.id


async def stored(rooms, actor, agent_id, **more):
    made = conversation_of(agent_id, **more)
    assert await rooms.conversations.create(actor, made)
    return made.conversation


async def used(rooms, actor, made):
    """Let a run of a conversation come and go; return what it was given."""
    run = new_run(made.agent_id, made.id)
    admission = await rooms.runs.admit(actor, run, LEASE)
    assert admission.outcome is AdmissionOutcome.CLAIMED, admission
    held = RunKey(actor.organization_id, made.agent_id, made.id, run.id, admission.fence)
    await rooms.runs.close(held, RunEnd(3, usage_pb2.STOP_REASON_END_TURN))
    return admission


async def left_of(rooms, actor, before):
    """Return the half done conversations of an organization: others use the same database."""
    found = await rooms.conversations.list_unfinished(before, 1_000)
    return [stored for owner, stored in found if owner.organization_id == actor.organization_id]


async def test_a_conversation_comes_back_as_it_was_stored(rooms, ann, agent_id):
    made = await stored(rooms, ann, agent_id, summary="About tea", model="m/y")
    assert await rooms.conversations.get(ann, made.id) == made


async def test_what_is_read_is_a_copy(rooms, ann, agent_id):
    made = await stored(rooms, ann, agent_id, summary="About tea")
    (await rooms.conversations.get(ann, made.id)).summary = "changed"
    assert (await rooms.conversations.get(ann, made.id)).summary == "About tea"


async def test_another_tenant_sees_nothing_and_changes_nothing(rooms, ann, bob, agent_id):
    made = await stored(rooms, ann, agent_id, request_id="r")
    for call in (
        rooms.conversations.get(bob, made.id),
        rooms.conversations.get_by_request(bob, "r"),
        rooms.conversations.update(bob, made),
        rooms.conversations.begin_removal(bob, made.id),
        rooms.conversations.finish(bob, made.id, []),
    ):
        with pytest.raises(ConversationNotFound):
            await call
    await rooms.conversations.delete(bob, made.id)
    assert await rooms.conversations.list_conversations(bob, ListConversationsRequest(), Page()) == []
    assert (await rooms.conversations.get(ann, made.id)).id == made.id


async def test_ten_at_once_for_one_request_make_one_conversation(rooms, ann, agent_id):
    drafts = [conversation_of(agent_id, request_id="r") for _ in range(10)]
    made = await asyncio.gather(*(rooms.conversations.create(ann, draft) for draft in drafts))
    assert made.count(True) == 1
    winner = drafts[made.index(True)].conversation.id
    assert (await rooms.conversations.get_by_request(ann, "r")).conversation.id == winner


async def test_a_conversation_that_is_being_made_shows_once_it_is_finished(rooms, ann, agent_id):
    made = await stored(rooms, ann, agent_id, stage=MAKING, request_id="r", labels=("human",))
    with pytest.raises(ConversationNotFound):
        await rooms.conversations.get(ann, made.id)
    begun = await rooms.conversations.get_by_request(ann, "r")
    assert (begun.stage, begun.isolated_labels, begun.request_id) == (MAKING, ("human",), "r")
    assert (await rooms.runs.admit(ann, new_run(agent_id, made.id), LEASE)).outcome is AdmissionOutcome.NO_CONVERSATION

    await rooms.conversations.finish(ann, made.id, ["block-1"])
    assert list((await rooms.conversations.get(ann, made.id)).isolated_block_ids) == ["block-1"]
    with pytest.raises(ConversationNotFound):
        await rooms.conversations.finish(ann, made.id, [])


async def test_a_change_leaves_what_is_not_its_own(rooms, ann, agent_id):
    made = await stored(rooms, ann, agent_id, stage=MAKING, summary="old")
    await rooms.conversations.finish(ann, made.id, ["block-1"])
    changed = Conversation.FromString(made.SerializeToString())
    changed.summary = "new"
    await rooms.conversations.update(ann, changed)
    found = await rooms.conversations.get(ann, made.id)
    assert (found.summary, list(found.isolated_block_ids)) == ("new", ["block-1"])


async def test_a_removed_conversation_leaves_in_two_steps(rooms, ann, agent_id):
    made = await stored(rooms, ann, agent_id, request_id="r")
    await used(rooms, ann, made)
    await rooms.conversations.begin_removal(ann, made.id)
    for call in (
        rooms.conversations.get(ann, made.id),
        rooms.conversations.update(ann, made),
        rooms.conversations.begin_removal(ann, made.id),
        rooms.conversations.get_by_request(ann, "r"),
    ):
        with pytest.raises(ConversationNotFound):
            await call
    assert (await rooms.runs.admit(ann, new_run(agent_id, made.id), LEASE)).outcome is AdmissionOutcome.NO_CONVERSATION
    await rooms.conversations.delete(ann, made.id)
    await rooms.conversations.delete(ann, made.id)
    assert await left_of(rooms, ann, SystemClock().now() + timedelta(days=1)) == []


async def test_nobody_takes_over_a_run_of_a_conversation_that_is_removed(rooms, ann, agent_id):
    made = await stored(rooms, ann, agent_id)
    await rooms.runs.admit(ann, new_run(agent_id, made.id), LeaseTerms("gone", -1_000))
    await rooms.conversations.begin_removal(ann, made.id)
    claimed = await rooms.queue.claim_due(LEASE, FreeSlots(10_000, 10_000))
    assert [job for job in claimed if job.actor.organization_id == ann.organization_id] == []


async def test_conversations_are_listed_by_page_filter_and_order(rooms, ann, agent_id):
    other = agent_of()
    await rooms.agents.create(ann, other)
    texts = ("About tea", "About coffee", "")
    ids = [(await stored(rooms, ann, agent_id, summary=text)).id for text in texts]
    elsewhere = (await stored(rooms, ann, other.id)).id
    await stored(rooms, ann, agent_id, stage=MAKING)

    async def found(filters=None, **page):
        listed = await rooms.conversations.list_conversations(
            ann, filters or ListConversationsRequest(agent_id=agent_id), Page(**page)
        )
        return [made.id for made in listed]

    assert await found() == ids[::-1]
    assert await found(ListConversationsRequest()) == [elsewhere, *ids[::-1]]
    assert await found(ascending=True, limit=2) == ids[:2]
    assert await found(after=ids[1]) == [ids[0]]
    assert await found(before=ids[1]) == [ids[2]]
    assert await found(ListConversationsRequest(agent_id=agent_id, summary_search="TEA")) == [ids[0]]
    assert await found(ListConversationsRequest(agent_id=agent_id, summary_search="_")) == []


@pytest.mark.parametrize(
    "order", ["CONVERSATION_ORDER_BY_LAST_MESSAGE_AT", "CONVERSATION_ORDER_BY_LAST_RUN_COMPLETION"]
)
async def test_conversations_that_were_used_last_come_first(rooms, ann, agent_id, order):
    made = [await stored(rooms, ann, agent_id) for _ in range(3)]
    await used(rooms, ann, made[1])
    await used(rooms, ann, made[0])
    listed = await rooms.conversations.list_conversations(
        ann, ListConversationsRequest(agent_id=agent_id, order_by=order), Page()
    )
    assert [found.id for found in listed] == [made[0].id, made[1].id, made[2].id]
    assert [found.HasField("last_message_at") for found in listed] == [True, True, False]


async def test_a_run_is_given_what_its_conversation_overrides(rooms, ann, agent_id):
    plain, other = await stored(rooms, ann, agent_id), await stored(rooms, ann, agent_id, model="m/y")
    assert (await used(rooms, ann, plain)).definition.state.model == "m/x"
    assert (await used(rooms, ann, other)).definition.state.model == "m/y"


async def test_a_conversation_of_another_agent_is_not_found(rooms, ann, agent_id):
    other = agent_of()
    await rooms.agents.create(ann, other)
    made = await stored(rooms, ann, agent_id)
    assert (await rooms.runs.admit(ann, new_run(other.id, made.id), LEASE)).outcome is AdmissionOutcome.NO_CONVERSATION


async def test_half_done_conversations_are_found_after_a_while(rooms, ann, agent_id):
    making = await stored(rooms, ann, agent_id, stage=MAKING, labels=("human",))
    removing = await stored(rooms, ann, agent_id)
    await stored(rooms, ann, agent_id)
    await rooms.conversations.begin_removal(ann, removing.id)

    async def left(before):
        return {stored.conversation.id: stored for stored in await left_of(rooms, ann, before)}

    assert await left(SystemClock().now() - timedelta(hours=1)) == {}
    later = await left(SystemClock().now() + timedelta(days=1))
    assert {key: stored.stage for key, stored in later.items()} == {making.id: MAKING, removing.id: REMOVING}
    assert later[making.id].isolated_labels == ("human",)


async def test_an_unknown_conversation_is_not_found(rooms, ann):
    with pytest.raises(ConversationNotFound):
        await rooms.conversations.get(ann, new_id("conv"))


async def test_runs_of_a_removed_conversation_have_ended(rooms, ann, agent_id):
    made, other = await stored(rooms, ann, agent_id), await stored(rooms, ann, agent_id)
    going, waiting, ended = (new_run(agent_id, made.id, most_waiting=10) for _ in range(3))
    admission = await rooms.runs.admit(ann, ended, LEASE)
    held = RunKey(ann.organization_id, agent_id, made.id, ended.id, admission.fence)
    await rooms.runs.close(held, RunEnd(3, usage_pb2.STOP_REASON_END_TURN))
    admission = await rooms.runs.admit(ann, going, LEASE)
    held = RunKey(ann.organization_id, agent_id, made.id, going.id, admission.fence)
    assert (await rooms.runs.admit(ann, waiting, LEASE)).outcome is AdmissionOutcome.QUEUED
    elsewhere = new_run(agent_id, other.id)
    await rooms.runs.admit(ann, elsewhere, LEASE)

    await rooms.conversations.begin_removal(ann, made.id)
    await rooms.conversations.delete(ann, made.id)
    assert (await rooms.queue.list_wishes([held])).cancelled == {going.id}
    await rooms.runs.close(held, RunEnd(3, usage_pb2.STOP_REASON_END_TURN))
    statuses = [(await rooms.runs.get(ann, run.id)).status for run in (ended, going, waiting, elsewhere)]
    assert statuses == [3, 5, 5, 2]
    assert (await rooms.runs.get(ann, going.id)).completed_at is not None
