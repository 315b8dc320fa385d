"""Each RPC of ConversationService, over the network and in process."""

import asyncio

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.agent.v1 import conversation_pb2, run_pb2
from letta.agent.v1 import conversation_service_pb2 as pb
from letta.agent.v1 import run_service_pb2 as run_pb
from letta.common.v1 import sort_order_pb2, usage_pb2
from letta_common.errors import (
    AgentNotFound,
    BlockNotFound,
    ConversationNotFound,
    CursorNotFound,
    IdempotencyConflict,
    InvalidArgument,
    ModelNotFound,
    RunNotActive,
    RunNotFound,
)
from letta_common.values.ids import new_id

CANCELLED = run_pb2.RUN_STATUS_CANCELLED


async def made(stubs, agent_id, **more):
    request = pb.CreateConversationRequest(agent_id=agent_id, **more)
    return (await stubs.conversations.CreateConversation(request, timeout=5)).conversation


async def got(stubs, conversation_id):
    request = pb.GetConversationRequest(conversation_id=conversation_id)
    return (await stubs.conversations.GetConversation(request, timeout=5)).conversation


async def listed(stubs, **query):
    answer = await stubs.conversations.ListConversations(pb.ListConversationsRequest(**query), timeout=5)
    return [conversation.id for conversation in answer.conversations]


async def sent(stubs, conversation_id, text="hi", *, agent_id=None, request_id=""):
    request = pb.SendConversationMessageRequest(
        conversation_id=conversation_id,
        run=run_pb2.RunRequest(input_text=text),
        agent_id=agent_id,
        request_id=request_id,
    )
    return await stubs.conversations.SendConversationMessage(request, timeout=20)


async def followed(stubs, conversation_id, **query):
    request = pb.StreamConversationRequest(conversation_id=conversation_id, include_pings=False, **query)
    return [event async for event in stubs.conversations.StreamConversation(request, timeout=20)]


def texts(messages):
    return [message.assistant_message.text for message in messages]


async def test_a_conversation_is_made_and_read(stubs):
    agent = await stubs.agent()
    conversation = await made(stubs, agent.id, summary="About.", isolated_block_labels=["human"])

    assert conversation.id.startswith("conv-")
    assert (conversation.agent_id, conversation.summary) == (agent.id, "About.")
    assert len(conversation.isolated_block_ids) == 1
    assert conversation.isolated_block_ids[0] != agent.blocks[0].id
    assert await got(stubs, conversation.id) == conversation


async def test_what_a_conversation_is_made_of_must_exist(stubs):
    agent = await stubs.agent()
    with pytest.raises(AgentNotFound):
        await made(stubs, new_id("agent"))
    with stubs.bob(), pytest.raises(AgentNotFound):
        await made(stubs, agent.id)
    with pytest.raises(BlockNotFound):
        await made(stubs, agent.id, isolated_block_labels=["nothing"])
    with pytest.raises(ModelNotFound):
        await made(stubs, agent.id, model="builtin/nothing")
    assert await listed(stubs, agent_id=agent.id) == []


async def test_the_same_request_makes_one_conversation(stubs):
    agent, key = await stubs.agent(), new_id("request")
    first, again = await made(stubs, agent.id, request_id=key), await made(stubs, agent.id, request_id=key)

    assert first.id == again.id
    assert await listed(stubs) == [first.id]


async def forked(stubs, conversation_id, **more):
    request = pb.ForkConversationRequest(conversation_id=conversation_id, **more)
    return (await stubs.conversations.ForkConversation(request, timeout=5)).conversation


async def test_a_fork_says_what_it_comes_from(stubs):
    agent = await stubs.agent()
    source = await made(stubs, agent.id)
    await sent(stubs, source.id, "One.")
    fork = await forked(stubs, source.id)
    assert (fork.forked_from_id, fork.HasField("forked_at_message_id")) == (source.id, False)
    assert await got(stubs, fork.id) == fork
    assert not (await got(stubs, source.id)).HasField("forked_from_id")
    for name in ("default", agent.id):
        assert (await forked(stubs, name, agent_id=agent.id)).forked_from_id == agent.id


async def test_the_same_request_makes_one_fork(stubs):
    agent = await stubs.agent()
    source = await made(stubs, agent.id)
    one, again = [await forked(stubs, source.id, request_id="the-key") for _ in range(2)]
    assert one == again
    with pytest.raises(IdempotencyConflict):
        await forked(stubs, agent.id, request_id="the-key")


async def test_a_conversation_of_another_organization_is_not_found(stubs):
    agent = await stubs.agent()
    mine = (await made(stubs, agent.id)).id
    await sent(stubs, mine)
    calls = [
        lambda i: got(stubs, i),
        lambda i: updated(stubs, i, summary="Stolen."),
        lambda i: stubs.conversations.DeleteConversation(pb.DeleteConversationRequest(conversation_id=i), timeout=5),
        lambda i: sent(stubs, i),
        lambda i: followed(stubs, i),
        lambda i: stubs.conversations.CancelConversation(pb.CancelConversationRequest(conversation_id=i), timeout=5),
    ]
    for call in calls:
        for unknown in (new_id("conv"), "nonsense"):
            with pytest.raises(ConversationNotFound):
                await call(unknown)
        with stubs.bob(), pytest.raises(ConversationNotFound):
            await call(mine)
    with stubs.bob():
        assert await listed(stubs) == []


async def updated(stubs, conversation_id, *paths, **values):
    request = pb.UpdateConversationRequest(
        conversation_id=conversation_id,
        conversation=conversation_pb2.Conversation(**values),
        update_mask=FieldMask(paths=paths or list(values)),
    )
    return (await stubs.conversations.UpdateConversation(request, timeout=5)).conversation


async def test_an_update_writes_what_the_mask_names(stubs):
    agent = await stubs.agent()
    conversation = await made(stubs, agent.id, summary="About.", model="builtin/echo")

    changed = await updated(stubs, conversation.id, "summary", model="ignored")
    assert (changed.HasField("summary"), changed.model) == (False, "builtin/echo")
    changed = await updated(stubs, conversation.id, "summary", summary="New.", id="conv-ignored")
    assert (changed.summary, changed.id) == ("New.", conversation.id)
    with pytest.raises(ModelNotFound):
        await updated(stubs, conversation.id, model="builtin/nothing")
    for path in ("nonsense", "id", "agent_id"):
        with pytest.raises(InvalidArgument, match=path):
            await updated(stubs, conversation.id, path)
    assert (await got(stubs, conversation.id)).summary == "New."


async def test_conversations_are_listed_in_pages(stubs):
    agent, other = await stubs.agent(), await stubs.agent()
    ids = [(await made(stubs, agent.id, summary=f"About {i}")).id for i in range(4)]
    newest, elsewhere = ids[::-1], (await made(stubs, other.id)).id

    assert await listed(stubs) == [elsewhere, *newest]
    assert await listed(stubs, agent_id=agent.id, limit=2) == newest[:2]
    assert await listed(stubs, agent_id=agent.id, after=newest[0], limit=2) == newest[1:3]
    assert await listed(stubs, agent_id=agent.id, before=newest[3], limit=2) == newest[1:3]
    assert await listed(stubs, agent_id=agent.id, order=sort_order_pb2.SORT_ORDER_ASC) == ids
    assert await listed(stubs, summary_search="ABOUT 2") == [ids[2]]
    await sent(stubs, ids[0])
    assert (await listed(stubs, order_by=pb.CONVERSATION_ORDER_BY_LAST_MESSAGE_AT))[0] == ids[0]
    await stubs.conversations.DeleteConversation(pb.DeleteConversationRequest(conversation_id=newest[1]), timeout=5)
    assert await listed(stubs, agent_id=agent.id, after=newest[1]) == newest[2:]
    with pytest.raises(CursorNotFound):
        await listed(stubs, after="conv-never")


async def test_a_deleted_conversation_is_gone_and_its_agent_stays(stubs):
    agent = await stubs.agent()
    conversation = await made(stubs, agent.id)
    await sent(stubs, conversation.id)
    await stubs.conversations.DeleteConversation(
        pb.DeleteConversationRequest(conversation_id=conversation.id), timeout=5
    )

    with pytest.raises(ConversationNotFound):
        await got(stubs, conversation.id)
    assert texts((await stubs.send(agent.id, "still here")).messages) == ["still here"]


async def test_a_run_in_a_deleted_conversation_ends(stubs):
    agent = await stubs.agent()
    conversation = await made(stubs, agent.id)
    stubs.model.hold()
    waiting = asyncio.ensure_future(sent(stubs, conversation.id, "hold"))
    await stubs.model.holding.wait()
    [run] = (await stubs.runs.ListRuns(run_pb.ListRunsRequest(conversation_id=conversation.id), timeout=5)).runs
    await stubs.conversations.DeleteConversation(
        pb.DeleteConversationRequest(conversation_id=conversation.id), timeout=5
    )
    stubs.model.release.set()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (await stubs.runs.GetRun(run_pb.GetRunRequest(run_id=run.id), timeout=5)).run.status == CANCELLED
    assert texts((await stubs.send(agent.id, "still here")).messages) == ["still here"]


async def test_conversations_do_not_hold_each_other(stubs):
    agent, key = await stubs.agent(), new_id("request")
    conversation = await made(stubs, agent.id)
    waiting = await stubs.held(agent.id)

    first = await sent(stubs, conversation.id, "aside", request_id=key)
    again = await sent(stubs, conversation.id, "aside", request_id=key)

    assert (texts(first.messages), first.run_id) == (["aside"], again.run_id)
    stubs.model.release.set()
    await waiting


async def test_the_default_conversation_has_two_names(stubs):
    agent = await stubs.agent()

    assert texts((await sent(stubs, "default", "one", agent_id=agent.id)).messages) == ["one"]
    assert texts((await sent(stubs, agent.id, "two")).messages) == ["two"]
    assert [texts([event.message]) for event in await followed(stubs, agent.id) if event.HasField("message")] == [
        ["two"]
    ]
    with pytest.raises(InvalidArgument):
        await sent(stubs, "default")


async def test_a_stream_tells_the_run_and_can_be_followed_again(stubs):
    agent = await stubs.agent()
    conversation = await made(stubs, agent.id)
    with pytest.raises(RunNotFound):
        await followed(stubs, conversation.id)
    message = run_pb2.MessageCreate(role="MESSAGE_ROLE_USER", text="hello", otid="otid-1")
    asked = run_pb2.RunRequest(messages=[run_pb2.InputMessage(message_create=message)], include_pings=False)
    request = pb.StreamConversationMessageRequest(conversation_id=conversation.id, run=asked)

    told = [event async for event in stubs.conversations.StreamConversationMessage(request, timeout=20)]

    assert [event.seq_id for event in told] == list(range(1, len(told) + 1))
    assert told[0].message.assistant_message.text == "hello"
    run_id = told[0].message.run_id
    await sent(stubs, conversation.id, "newer")
    newest = await followed(stubs, conversation.id)
    assert newest[0].message.assistant_message.text == "newer"
    for query in ({"run_id": run_id}, {"otid": "otid-1"}):
        again = await followed(stubs, conversation.id, starting_after=1, **query)
        assert [event.seq_id for event in again] == [event.seq_id for event in told[1:]]


async def test_the_run_of_a_conversation_is_cancelled(stubs):
    agent = await stubs.agent()
    waiting = await stubs.held(agent.id)
    request = pb.CancelConversationRequest(conversation_id="default", agent_id=agent.id)

    statuses = (await stubs.conversations.CancelConversation(request, timeout=10)).statuses

    assert list(statuses.values()) == ["cancelled"]
    assert (await waiting).stop_reason.stop_reason == usage_pb2.STOP_REASON_CANCELLED
    with pytest.raises(RunNotActive):
        await stubs.conversations.CancelConversation(request, timeout=5)
    stubs.model.release.set()
