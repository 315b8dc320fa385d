"""MessageService: lists, types and search."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from letta.common.v1 import letta_message_pb2, message_pb2, sort_order_pb2
from letta.memory.v1 import context_service_pb2
from letta.memory.v1 import message_service_pb2 as pb
from letta_common.actor import Actor
from letta_common.errors import (
    AgentNotFound,
    ConversationNotFound,
    CursorNotFound,
    InvalidArgument,
    MessageNotFound,
    ValidationFailed,
)
from letta_common.values.ids import new_id

ASC, DESC = sort_order_pb2.SORT_ORDER_ASC, sort_order_pb2.SORT_ORDER_DESC


def said(messages: Any) -> list[str]:
    """Return the text of each message for clients."""
    found = []
    for shown in messages:
        body = getattr(shown, shown.WhichOneof("message"))
        found.append(getattr(body, "text", "") or getattr(body, "content", "") or getattr(body, "reasoning", ""))
    return found


async def talk(memory: Any, *pairs: tuple[str, str]) -> str:
    agent: str = await memory.agent()
    for asked, answered in pairs:
        run, _ = await memory.begin(agent, asked)
        await memory.commit(agent, run, answered)
    return agent


async def history(memory: Any, agent: str, **fields: Any) -> Any:
    request = pb.ListAgentMessagesRequest(agent_id=agent, **fields)
    return (await memory.messages.ListAgentMessages(request, timeout=10)).messages


async def test_the_newest_are_chosen_and_shown_oldest_first(memory: Any) -> None:
    agent = await talk(memory, ("a", "b"), ("c", "d"))
    assert said(await history(memory, agent)) == ["You are Ada.", "a", "b", "c", "d"]
    assert said(await history(memory, agent, limit=2)) == ["c", "d"]
    assert said(await history(memory, agent, limit=2, order=ASC)) == ["You are Ada.", "a"]
    every = await history(memory, agent)
    assert said(await history(memory, agent, limit=2, order=ASC, after=every[0].id)) == ["a", "b"]
    assert said(await history(memory, agent, limit=2, after=every[1].id)) == ["b", "c"]
    assert said(await history(memory, agent, limit=2, before=every[3].id)) == ["a", "b"]
    assert said(await history(memory, agent, after=every[-1].id)) == []
    assert said(await history(memory, agent, limit=2, order=ASC, before=every[4].id)) == ["b", "c"]
    with pytest.raises(CursorNotFound):
        await history(memory, agent, after=new_id("message"))


async def test_a_conversation_is_listed_newest_first(memory: Any) -> None:
    agent = await talk(memory, ("a", "b"))
    for fields in ({"conversation_id": agent}, {"conversation_id": "default", "agent_id": agent}):
        request = pb.ListConversationMessagesRequest(limit=2, **fields)
        assert said((await memory.messages.ListConversationMessages(request, timeout=10)).messages) == ["b", "a"]
    with pytest.raises(InvalidArgument):
        await memory.messages.ListConversationMessages(
            pb.ListConversationMessagesRequest(conversation_id="default"), timeout=10
        )
    with pytest.raises(ConversationNotFound):
        await memory.messages.ListConversationMessages(
            pb.ListConversationMessagesRequest(conversation_id=new_id("conv")), timeout=10
        )


async def test_conversations_are_kept_apart(memory: Any) -> None:
    agent, conversation = await talk(memory, ("a", "b")), new_id("conv")
    request = context_service_pb2.ProvisionConversationRequest(
        agent_id=agent, conversation_id=conversation, messages=[memory.message(1, "other")]
    )
    await memory.contexts.ProvisionConversation(request, timeout=10)
    for own in (agent, "default"):
        assert said(await history(memory, agent, conversation_id=own)) == ["You are Ada.", "a", "b"]
    assert said(await history(memory, agent, conversation_id=conversation)) == ["other"]
    with pytest.raises(ConversationNotFound):
        await history(memory, agent, conversation_id=new_id("conv"))
    with pytest.raises(AgentNotFound):
        await history(memory, new_id("agent"))


async def test_an_agent_has_the_messages_of_all_its_conversations_by_time(memory: Any) -> None:
    agent, stranger = await talk(memory, ("a", "b"), ("c", "d")), await talk(memory, ("x", "y"))
    own = await history(memory, agent)
    conversation, fork = new_id("conv"), new_id("conv")
    between = [memory.message(2, text) for text in ("p", "q")]
    for message, before in zip(between, (own[2], own[4]), strict=True):
        message.created_at.FromNanoseconds(before.date.ToNanoseconds() + 1_000)
    request = context_service_pb2.ProvisionConversationRequest(
        agent_id=agent, conversation_id=conversation, messages=between
    )
    await memory.contexts.ProvisionConversation(request, timeout=10)
    request = context_service_pb2.ProvisionConversationRequest(
        agent_id=agent, conversation_id=fork, source_conversation_id=agent, messages=[memory.message(1, "forked")]
    )
    await memory.contexts.ProvisionConversation(request, timeout=10)

    every = await history(memory, agent)
    assert sorted(said(every)) == sorted(["You are Ada.", "a", "b", "p", "c", "d", "q", "forked"])
    assert said(one for one in every if said([one]) != ["forked"]) == ["You are Ada.", "a", "b", "p", "c", "d", "q"]
    assert said(await history(memory, stranger)) == ["You are Ada.", "x", "y"]
    for order, cursor in ((ASC, "after"), (DESC, "before")):
        found: list[Any] = []
        while page := await history(memory, agent, limit=2, order=order, **({cursor: _end(found, order)})):
            found = [*found, *page] if order == ASC else [*page, *found]
        assert said(found) == said(every)


def _end(found: list[Any], order: Any) -> str:
    return "" if not found else str(found[-1].id if order == ASC else found[0].id)


async def test_one_stored_message_becomes_several_of_one_id(memory: Any) -> None:
    agent = await memory.agent()
    run, _ = await memory.begin(agent, "sum?")
    made = memory.message(3, "Let me see.", run_id=run)
    made.parts.insert(
        0, message_pb2.ContentPart(reasoning=message_pb2.ReasoningContent(is_native=True, reasoning="hm"))
    )
    made.parts.add(tool_call=message_pb2.ToolCallContent(id="call-1", name="add", input='{"a": 1}'))
    request = context_service_pb2.CommitStepRequest(
        agent_id=agent, conversation_id=agent, run_id=run, fence=1, messages=[made]
    )
    await memory.contexts.CommitStep(request, timeout=10)

    got = (await memory.messages.GetMessage(pb.GetMessageRequest(message_id=made.id), timeout=10)).messages
    assert [m.WhichOneof("message") for m in got] == ["reasoning_message", "assistant_message", "tool_call_message"]
    assert {made.id} == {shown.id for shown in got}
    assert len({shown.otid for shown in got}) == 3
    wanted = [letta_message_pb2.MESSAGE_TYPE_REASONING_MESSAGE, letta_message_pb2.MESSAGE_TYPE_USER_MESSAGE]
    listed = await history(memory, agent, include_return_message_types=wanted)
    assert [shown.WhichOneof("message") for shown in listed] == ["user_message", "reasoning_message"]
    with pytest.raises(ValidationFailed):
        await history(memory, agent, include_return_message_types=[0])


async def test_the_message_tool_reads_as_speech(memory: Any) -> None:
    agent = await memory.agent()
    run, _ = await memory.begin(agent)
    made = memory.message(3, "", run_id=run)
    made.parts[0].tool_call.CopyFrom(
        message_pb2.ToolCallContent(id="c", name="send_message", input='{"message": "hello"}')
    )
    request = context_service_pb2.CommitStepRequest(
        agent_id=agent, conversation_id=agent, run_id=run, fence=1, messages=[made]
    )
    await memory.contexts.CommitStep(request, timeout=10)
    assert (await history(memory, agent))[-1].assistant_message.text == "hello"
    plain = await history(memory, agent, compat={"use_assistant_message": False})
    assert plain[-1].tool_call_message.tool_call.name == "send_message"


async def test_failures_are_left_out_unless_asked_for(memory: Any) -> None:
    agent = await memory.agent()
    run, _ = await memory.begin(agent)
    made = memory.message(3, "broken", run_id=run, is_err=True, group_id="group-1")
    request = context_service_pb2.CommitStepRequest(
        agent_id=agent, conversation_id=agent, run_id=run, fence=1, messages=[made]
    )
    await memory.contexts.CommitStep(request, timeout=10)
    assert said(await history(memory, agent)) == ["You are Ada."]
    assert said(await history(memory, agent, include_err=True, group_id="group-1")) == ["broken"]


async def test_all_messages_of_an_organization(memory: Any) -> None:
    with memory.actor(Actor(new_id("org"), "user-x")):
        await talk(memory, ("a", "b"))
        second = await talk(memory, ("c", "d"))

        async def page(**fields: Any) -> Any:
            return (await memory.messages.ListMessages(pb.ListMessagesRequest(**fields), timeout=10)).messages

        assert said(await page()) == ["You are Ada.", "a", "b", "You are Ada.", "c", "d"]
        assert said(await page(limit=2)) == ["c", "d"]
        assert said(await page(conversation_id=second)) == ["You are Ada.", "c", "d"]
        first = (await page(limit=1, order=ASC))[0]
        assert said(await page(limit=2, order=ASC, after=first.id)) == ["a", "b"]


async def test_messages_of_a_run_and_of_a_step(memory: Any) -> None:
    agent = await talk(memory, ("a", "b"))
    run, _ = await memory.begin(agent, "c")
    step = new_id("step")
    made = memory.message(3, "d", run_id=run, step_id=step)
    request = context_service_pb2.CommitStepRequest(
        agent_id=agent, conversation_id=agent, run_id=run, fence=1, messages=[made]
    )
    await memory.contexts.CommitStep(request, timeout=10)
    answer = await memory.messages.ListRunMessages(pb.ListRunMessagesRequest(run_id=run), timeout=10)
    assert said(answer.messages) == ["c", "d"]
    answer = await memory.messages.ListStepMessages(pb.ListStepMessagesRequest(step_id=step), timeout=10)
    assert said(answer.messages) == ["d"]
    answer = await memory.messages.ListRunMessages(
        pb.ListRunMessagesRequest(run_id=run, after=answer.messages[0].id), timeout=10
    )
    assert said(answer.messages) == []


async def test_the_cursor_of_a_forgotten_message_works(memory: Any) -> None:
    agent = await talk(memory, ("a", "b"))
    cursor = (await history(memory, agent))[1].id
    await memory.contexts.ResetConversation(
        context_service_pb2.ResetConversationRequest(agent_id=agent, conversation_id=agent), timeout=10
    )
    await memory.begin(agent, "new")
    assert said(await history(memory, agent, after=cursor, order=ASC)) == ["new"]


async def test_other_tenants_see_nothing(memory: Any) -> None:
    agent = await talk(memory, ("secret words", "b"))
    message_id = (await history(memory, agent))[0].id
    with memory.actor(memory.BOB):
        with pytest.raises(AgentNotFound):
            await history(memory, agent)
        with pytest.raises(ConversationNotFound):
            await memory.messages.ListConversationMessages(
                pb.ListConversationMessagesRequest(conversation_id=agent), timeout=10
            )
        with pytest.raises(MessageNotFound):
            await memory.messages.GetMessage(pb.GetMessageRequest(message_id=message_id), timeout=10)
        found = await memory.messages.SearchMessages(pb.SearchMessagesRequest(query="secret words"), timeout=10)
        assert list(found.results) == []


async def test_search_finds_words_at_once_and_meaning_later(memory: Any) -> None:
    agent = await talk(memory, ("I drive a car", "Nice."), ("And tea?", "I brew tea daily."))

    async def search(query: str, **fields: Any) -> list[str]:
        request = pb.SearchMessagesRequest(query=query, agent_id=agent, **fields)
        results = (await memory.messages.SearchMessages(request, timeout=10)).results
        assert all(result.agent_id == agent and not result.HasField("conversation_id") for result in results)
        return said(results)

    assert {"And tea?", "I brew tea daily."} <= set(await search("tea", search_mode=pb.SEARCH_MODE_FTS))
    async with asyncio.timeout(20):
        while not (found := await search("automobile", search_mode=pb.SEARCH_MODE_VECTOR)) or len(found) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert found[0] == "I drive a car"
    assert len(await search("tea", limit=1)) == 1


async def test_a_tool_searches_stored_messages(memory: Any) -> None:
    agent = await talk(memory, ("I like tea", "Noted: tea."), ("bye", "bye"))

    async def search(query: str = "", **fields: Any) -> Any:
        request = pb.SearchStoredMessagesRequest(agent_id=agent, query=query, search_mode=pb.SEARCH_MODE_FTS, **fields)
        return (await memory.messages.SearchStoredMessages(request, timeout=10)).results

    found = await search("tea", roles=[message_pb2.MESSAGE_ROLE_USER])
    assert memory.texts(hit.message for hit in found) == ["I like tea"]
    assert (agent, 1, 0) == (found[0].conversation_id, found[0].word_rank, found[0].meaning_rank)
    newest = await search(limit=2)
    assert memory.texts(hit.message for hit in newest) == ["bye", "bye"]
    stamp = message_pb2.Message.FromString(found[0].message).created_at
    assert memory.texts(hit.message for hit in await search("tea", end_date=stamp)) == ["I like tea"]
    assert list(await search("Ada")) == []


@pytest.mark.parametrize("order", [ASC, DESC])
async def test_a_page_never_exceeds_what_a_default_client_takes(memory: Any, order: Any) -> None:
    """Sixty messages of 200,000 bytes are 12 MB: pages end earlier, at whole messages, and lead to all of them."""
    long = "x" * 200_000
    agent = await talk(memory, *((f"{number} {long}", f"answer {number}") for number in range(30)))
    read: list[Any] = []
    while page := await history(memory, agent, order=ASC, after=read[-1].id if read else ""):
        assert 1 < len(page) < 60
        assert sum(shown.ByteSize() for shown in page) < 4_100_000
        read += page
    newest = await history(memory, agent, order=order)
    back = list(newest) if order == DESC else read[-1:]
    while page := await history(memory, agent, order=order, before=back[0].id):
        back = [*page, *back]

    texts = [words.split()[0] for words in said(read)]
    assert texts == ["You", *(word for number in range(30) for word in (str(number), "answer"))]
    assert [shown.id for shown in back] == [shown.id for shown in read]
