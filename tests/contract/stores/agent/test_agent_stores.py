"""Agents in PostgreSQL and their twins in memory keep the same promises."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from letta.agent.v1 import agent_pb2, agent_service_pb2
from letta.common.v1 import usage_pb2
from letta_agent.domain.agents.records import CountAgentsRequest, ListAgentsRequest, Stage
from letta_agent.domain.journal.records import AdmissionOutcome, HeldCalls, LeaseTerms, RunEnd, RunKey
from letta_common.clock import SystemClock
from letta_common.errors import AgentNotFound, ConversationNotFound, RunNotFound
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from tests.contract.stores.agent.conftest import agent_of, conversation_of, new_run

LEASE = LeaseTerms("me", 60_000)
END_TURN = usage_pb2.STOP_REASON_END_TURN
COMPLETED = 3


async def stored(rooms, actor, **more):
    agent = agent_of(**more)
    assert await rooms.agents.create(actor, agent)
    return agent


async def closed(rooms, actor, agent_id, end=None, conversation_id=""):
    """Let a run of an agent come and go."""
    run = new_run(agent_id, conversation_id)
    admission = await rooms.runs.admit(actor, run, LEASE)
    assert admission.outcome is AdmissionOutcome.CLAIMED, admission
    held = RunKey(actor.organization_id, agent_id, run.conversation_id, run.id, admission.fence)
    await rooms.runs.close(held, end or RunEnd(COMPLETED, END_TURN))
    return held


async def test_an_agent_comes_back_as_it_was_stored(rooms, ann):
    agent = await stored(
        rooms, ann, tool_ids=("tool-2", "tool-1"), secrets=b"sealed", tags=["b", "a"], system="Be kind."
    )
    found = await rooms.agents.get(ann, agent.id)
    assert (found.state, found.tool_ids, found.secrets) == (agent.state, ("tool-2", "tool-1"), b"sealed")
    assert (found.version, found.stage, found.approval) == (1, Stage.READY, b"")


async def test_what_is_read_is_a_copy(rooms, ann):
    agent = await stored(rooms, ann)
    (await rooms.agents.get(ann, agent.id)).state.name = "Eve"
    agent.state.name = "Mallory"
    assert (await rooms.agents.get(ann, agent.id)).state.name == "Ada"


async def test_another_tenant_sees_nothing_and_changes_nothing(rooms, ann, bob):
    agent = await stored(rooms, ann, request_id="r")
    for call in (
        rooms.agents.get(bob, agent.id),
        rooms.agents.get_by_request(bob, "r"),
        rooms.agents.begin_removal(bob, agent.id),
    ):
        with pytest.raises(AgentNotFound):
            await call
    await rooms.agents.delete(bob, agent.id)
    await rooms.agents.finish(bob, agent.id)
    assert not await rooms.agents.update(bob, replace(agent, version=2), expected=1)
    assert await rooms.agents.list_agents(bob, ListAgentsRequest(), Page()) == []
    assert await rooms.agents.count(bob, CountAgentsRequest()) == 0
    assert (await rooms.agents.get(ann, agent.id)).version == 1


async def test_a_request_makes_one_agent(rooms, ann, bob):
    first = await stored(rooms, ann, request_id="r")
    assert not await rooms.agents.create(ann, agent_of(request_id="r"))
    assert (await rooms.agents.get_by_request(ann, "r")).id == first.id
    await stored(rooms, bob, request_id="r")
    await stored(rooms, ann)
    await stored(rooms, ann)


async def test_ten_at_once_for_one_request_make_one_agent(rooms, ann):
    made = await asyncio.gather(*(rooms.agents.create(ann, agent_of(request_id="r")) for _ in range(10)))
    assert made.count(True) == 1


async def test_an_agent_that_is_being_made_shows_once_it_is_finished(rooms, ann):
    agent = await stored(rooms, ann, stage=Stage.MAKING, request_id="r")
    with pytest.raises(AgentNotFound):
        await rooms.agents.get(ann, agent.id)
    assert await rooms.agents.count(ann, CountAgentsRequest()) == 0
    begun = await rooms.agents.get_by_request(ann, "r")
    assert (begun.stage, begun.creation) == (Stage.MAKING, b"left")

    await rooms.agents.finish(ann, agent.id)
    found = await rooms.agents.get(ann, agent.id)
    assert (found.stage, found.creation) == (Stage.READY, b"")


async def test_a_removed_agent_leaves_in_two_steps(rooms, ann):
    agent = await stored(rooms, ann, request_id="r")
    held = await closed(rooms, ann, agent.id)
    made = conversation_of(agent.id)
    await rooms.conversations.create(ann, made)

    await rooms.agents.begin_removal(ann, agent.id)
    with pytest.raises(AgentNotFound):
        await rooms.agents.get(ann, agent.id)
    with pytest.raises(AgentNotFound):
        await rooms.agents.begin_removal(ann, agent.id)
    assert await rooms.agents.list_agents(ann, ListAgentsRequest(), Page()) == []
    assert await rooms.agents.create(ann, agent_of(request_id="r"))
    assert (await rooms.runs.admit(ann, new_run(agent.id), LEASE)).outcome is AdmissionOutcome.NO_AGENT

    await rooms.agents.delete(ann, agent.id)
    await rooms.agents.delete(ann, agent.id)
    with pytest.raises(RunNotFound):
        await rooms.runs.get(ann, held.run_id)
    with pytest.raises(ConversationNotFound):
        await rooms.conversations.get(ann, made.conversation.id)


async def test_a_finished_agent_is_not_finished_again_while_it_is_removed(rooms, ann):
    agent = await stored(rooms, ann)
    await rooms.agents.begin_removal(ann, agent.id)
    await rooms.agents.finish(ann, agent.id)
    with pytest.raises(AgentNotFound):
        await rooms.agents.get(ann, agent.id)


async def test_only_the_expected_version_is_replaced(rooms, ann):
    agent = await stored(rooms, ann, tool_ids=("tool-1", "tool-2"), tags=["old"])
    state = agent_pb2.Agent.FromString(agent.state.SerializeToString())
    state.name, state.tags[:] = "Eve", ["new"]
    changed = replace(agent, state=state, tool_ids=("tool-3", "tool-1"), secrets=b"s", version=2)

    assert not await rooms.agents.update(ann, changed, expected=7)
    assert await rooms.agents.update(ann, changed, expected=1)
    assert not await rooms.agents.update(ann, changed, expected=1)
    found = await rooms.agents.get(ann, agent.id)
    assert (found.state.name, found.tool_ids, found.secrets, found.version) == ("Eve", ("tool-3", "tool-1"), b"s", 2)
    assert await rooms.agents.count(ann, CountAgentsRequest(tags=("new",))) == 1
    assert await rooms.agents.count(ann, CountAgentsRequest(tags=("old",))) == 0


async def test_ten_writers_of_one_version_write_once(rooms, ann):
    agent = await stored(rooms, ann)
    wrote = await asyncio.gather(*(rooms.agents.update(ann, replace(agent, version=2), expected=1) for _ in range(10)))
    assert wrote.count(True) == 1


async def test_agents_are_listed_by_page_and_order(rooms, ann):
    ids = [(await stored(rooms, ann, name=name)).id for name in ("a", "b", "c")]

    async def found(filters=None, **page):
        return [agent.id for agent in await rooms.agents.list_agents(ann, filters or ListAgentsRequest(), Page(**page))]

    assert await found() == ids[::-1]
    assert await found(ascending=True) == ids
    assert await found(limit=2) == [ids[2], ids[1]]
    assert await found(after=ids[1]) == [ids[0]]
    assert await found(before=ids[1]) == [ids[2]]
    await closed(rooms, ann, ids[1])
    assert (await found(ListAgentsRequest(order_by=agent_service_pb2.AGENT_ORDER_BY_LAST_RUN_COMPLETION)))[0] == ids[1]
    assert await found(ListAgentsRequest(order_by=agent_service_pb2.AGENT_ORDER_BY_UPDATED_AT), ascending=True) == ids


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["one", "two"]),
        ({"name": "one"}, ["one"]),
        ({"query_text": "O"}, ["one", "two"]),
        ({"query_text": "%"}, []),
        ({"tags": ("x", "y")}, ["one", "two"]),
        ({"tags": ("x", "y"), "match_all_tags": True}, ["one"]),
        ({"project_id": "p"}, ["two"]),
        ({"template_id": "t"}, ["one"]),
        ({"base_template_id": "bt"}, ["one"]),
        ({"created_by_id": "user-1"}, ["one"]),
        ({"last_stop_reason": END_TURN}, ["two"]),
        ({"last_stop_reason": usage_pb2.STOP_REASON_ERROR}, []),
    ],
)
async def test_agents_are_filtered(rooms, ann, filters, names):
    await stored(rooms, ann, name="one", tags=["x", "y"], template_id="t", base_template_id="bt", created_by="user-1")
    two = await stored(rooms, ann, name="two", tags=["y"], project_id="p", created_by="user-2")
    await stored(rooms, ann, name="hidden one", tags=["x", "y"], hidden=True)
    await closed(rooms, ann, two.id)

    listed = await rooms.agents.list_agents(ann, ListAgentsRequest(**filters), Page(ascending=True))
    assert [agent.state.name for agent in listed] == names
    assert await rooms.agents.count(ann, CountAgentsRequest(**filters)) == len(names)


async def test_agents_are_listed_among_those_that_are_named(rooms, ann, bob):
    one, two, three = [await stored(rooms, ann, name=name) for name in ("one", "two", "three")]
    other = await stored(rooms, bob, name="one")

    async def found(among, **page):
        return [a.id for a in await rooms.agents.list_agents(ann, ListAgentsRequest(), Page(**page), among)]

    assert await found([one.id, three.id, other.id]) == [three.id, one.id]
    assert await found([one.id, three.id], after=three.id) == [one.id]
    assert await found([]) == []
    assert await rooms.agents.list_agents(ann, ListAgentsRequest(name="two"), Page(), [one.id]) == []
    assert await rooms.agents.count(ann, CountAgentsRequest(), [one.id, three.id, other.id]) == 2
    assert [two.id] == await found([two.id])


async def test_labels_are_listed_once_in_the_order_of_their_characters(rooms, ann, bob):
    await stored(rooms, ann, tags=["b", "a", "Z"])
    await stored(rooms, ann, tags=["b", "100%", "a_c", "é"])
    await stored(rooms, bob, tags=["theirs"])

    async def found(containing="", **page):
        return await rooms.agents.list_tags(ann, Page(**page), containing=containing)

    every = ["100%", "Z", "a", "a_c", "b", "é"]
    assert await found(ascending=True) == every
    assert await found() == every[::-1]
    assert await found(ascending=True, limit=2) == every[:2]
    assert await found(ascending=True, after="Z", limit=2) == ["a", "a_c"]
    assert await found(ascending=True, after="A gone one") == every[1:]
    assert await found(ascending=True, before="b", limit=2) == ["a", "a_c"]
    assert await found(before="a", limit=1) == ["a_c"]
    assert await found("A", ascending=True) == ["a", "a_c"]
    assert await found("%", ascending=True) == ["100%"]
    assert await found("_", ascending=True) == ["a_c"]


async def test_an_agent_tells_of_its_last_run(rooms, ann):
    agent = await stored(rooms, ann)
    assert not (await rooms.agents.get(ann, agent.id)).state.HasField("last_run_completion")
    pending = HeldCalls("message-1", ("call-1",), b"shown")
    await closed(rooms, ann, agent.id, RunEnd(COMPLETED, usage_pb2.STOP_REASON_REQUIRES_APPROVAL, pending=pending))
    found = await rooms.agents.get(ann, agent.id)
    assert found.state.HasField("last_run_completion")
    assert found.state.last_stop_reason == usage_pb2.STOP_REASON_REQUIRES_APPROVAL
    assert found.approval == b"shown"


async def test_half_done_agents_are_found_after_a_while(rooms, ann):
    making = await stored(rooms, ann, stage=Stage.MAKING, created_by="user-ann")
    removing = await stored(rooms, ann, created_by="user-ann")
    await stored(rooms, ann)
    await rooms.agents.begin_removal(ann, removing.id)

    async def left(before):
        found = await rooms.agents.list_unfinished(before, 1_000)
        return {a.id: (actor, a.stage) for actor, a in found if actor.organization_id == ann.organization_id}

    assert await left(SystemClock().now() - timedelta(hours=1)) == {}
    later = await left(SystemClock().now() + timedelta(days=1))
    assert {agent_id: stage for agent_id, (_, stage) in later.items()} == {
        making.id: Stage.MAKING,
        removing.id: Stage.REMOVING,
    }
    assert {actor.user_id for actor, _ in later.values()} == {"user-ann"}
    assert len(await rooms.agents.list_unfinished(SystemClock().now() + timedelta(days=1), 1)) == 1


async def test_a_conversation_says_who_holds_it(rooms, ann, bob):
    agent = await stored(rooms, ann)
    free = await rooms.agents.hold(ann, agent.id)
    assert (free.busy, free.fence) == (False, 1)
    run = new_run(agent.id)
    await rooms.runs.admit(ann, run, LEASE)
    await rooms.runs.admit(ann, new_run(agent.id, most_waiting=10), LEASE)
    hold = await rooms.agents.hold(ann, agent.id)
    assert (hold.run_id, hold.fence, hold.pending, hold.busy) == (run.id, 1, 1, True)
    assert not (await rooms.agents.hold(bob, agent.id)).busy


async def test_a_free_conversation_is_seized_above_every_fence(rooms, ann):
    agent = await stored(rooms, ann)
    fences = [(await rooms.agents.seize(ann, agent.id, agent.id)).fence]
    await closed(rooms, ann, agent.id)
    fences.append((await rooms.agents.seize(ann, agent.id, agent.id)).fence)
    fences.append((await rooms.agents.seize(ann, agent.id, agent.id, above=40)).fence)
    admission = await rooms.runs.admit(ann, new_run(agent.id), LEASE)
    assert [*fences, admission.fence] == [1, 3, 41, 42]


async def test_a_busy_conversation_is_not_seized(rooms, ann):
    agent = await stored(rooms, ann)
    run, waits = new_run(agent.id), new_run(agent.id, most_waiting=10)
    admission = await rooms.runs.admit(ann, run, LEASE)
    seized = await rooms.agents.seize(ann, agent.id, agent.id)
    assert (seized.busy, seized.run_id, seized.fence) == (True, run.id, admission.fence)

    await rooms.runs.admit(ann, waits, LEASE)
    held = RunKey(ann.organization_id, agent.id, agent.id, run.id, admission.fence)
    await rooms.runs.close(held, RunEnd(COMPLETED, END_TURN))
    assert (await rooms.agents.seize(ann, agent.id, agent.id)).busy


async def test_seizing_and_admission_at_once_have_fences_of_their_own(rooms, ann):
    agent = await stored(rooms, ann)
    run = new_run(agent.id)
    seized, admission, other = await asyncio.gather(
        rooms.agents.seize(ann, agent.id, agent.id),
        rooms.runs.admit(ann, run, LEASE),
        rooms.agents.seize(ann, agent.id, agent.id),
    )
    assert admission.outcome is AdmissionOutcome.CLAIMED
    free = [hold.fence for hold in (seized, other) if not hold.busy]
    assert len({*free, admission.fence}) == len(free) + 1


async def test_an_approval_is_forgotten_unless_a_run_came_since(rooms, ann):
    agent = await stored(rooms, ann)
    pending = HeldCalls("message-1", ("call-1",), b"shown")
    waits = RunEnd(COMPLETED, usage_pb2.STOP_REASON_REQUIRES_APPROVAL, pending=pending, context_tokens=7)
    await closed(rooms, ann, agent.id, waits)
    fence = (await rooms.agents.seize(ann, agent.id, agent.id)).fence

    await rooms.agents.forget(ann, agent.id, fence - 1)
    assert (await rooms.runs.admit(ann, new_run(agent.id), LEASE)).outcome is AdmissionOutcome.PENDING
    await rooms.agents.forget(ann, agent.id, fence)
    admission = await rooms.runs.admit(ann, new_run(agent.id), LEASE)
    assert (admission.outcome, admission.definition.context_tokens) == (AdmissionOutcome.CLAIMED, 0)


async def test_an_unknown_agent_is_not_found(rooms, ann):
    with pytest.raises(AgentNotFound):
        await rooms.agents.get(ann, new_id("agent"))
    with pytest.raises(AgentNotFound):
        await rooms.agents.get_by_request(ann, "never")


async def test_a_run_that_slipped_in_while_its_agent_was_removed_is_forgotten(rooms, ann):
    """Admission read the agent just before its removal began, and wrote just after it ended."""
    slipped, kept = await stored(rooms, ann), await stored(rooms, ann)
    runs = {}
    for agent in (slipped, kept):
        runs[agent.id] = new_run(agent.id)
        await rooms.runs.admit(ann, runs[agent.id], LeaseTerms("gone", -1_000))
    await rooms.vanish(ann, slipped.id)

    now = SystemClock().now()
    assert await rooms.queue.forget_orphans(now - timedelta(hours=1), 100) == 0
    assert await rooms.queue.forget_orphans(now, 100) == 1
    assert await rooms.queue.forget_orphans(now, 100) == 0
    with pytest.raises(RunNotFound):
        await rooms.runs.get(ann, runs[slipped.id].id)
    assert (await rooms.runs.get(ann, runs[kept.id].id)).active
    assert not (await rooms.agents.hold(ann, slipped.id)).busy
