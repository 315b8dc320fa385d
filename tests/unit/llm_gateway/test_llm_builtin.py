"""`builtin/rules` over long histories: what was said first is known, a step reads its new messages, nobody waits."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from letta.common.v1 import message_pb2 as m
from letta.llm.v1.generation_service_pb2 import Prompt
from letta_llm_gateway.domain.answers import Call
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.domain.rules.engine import HeardMessage
from letta_llm_gateway.providers.vendors.builtin import BuiltinProvider, read
from tests.support.prompts import called_by_client, kept


def said(role: m.MessageRole.ValueType, words: str) -> m.Message:
    return m.Message(role=role, parts=[m.ContentPart(text=m.TextContent(text=words))])


def user(words: str) -> m.Message:
    return said(m.MESSAGE_ROLE_USER, words)


def call(*messages: m.Message) -> Call:
    return Call("rules", Prompt(messages=kept(*messages)))


def talk(length: int) -> list[m.Message]:
    talked = ([user(f"I like number {at}"), said(m.MESSAGE_ROLE_ASSISTANT, "Noted.")] for at in range(length // 2))
    return [user("My name is Sam"), *itertools.chain.from_iterable(talked)]


@pytest.mark.parametrize("length", [12, 1000])
async def test_a_step_reads_its_new_messages_alone_and_knows_what_was_said_first(length: int) -> None:
    fragments, talked = Fragments(), talk(length)
    provider = BuiltinProvider(fragments=fragments)
    await provider.generate(call(*talked))
    before = fragments.read

    answer = await provider.generate(call(*talked, user("What is my name?")))

    assert answer.parts[0].text.text == "Your name is Sam."
    assert fragments.read == before + 1


@pytest.mark.parametrize("block", [1, 2, 3, 32])
async def test_a_prompt_is_read_alike_however_it_is_cut(block: int) -> None:
    returned = m.ContentPart(tool_return=m.ToolReturnContent(content="no", is_error=True))
    messages = [
        said(m.MESSAGE_ROLE_SYSTEM, "Be kind."),
        said(m.MESSAGE_ROLE_ASSISTANT, "Hello."),
        user("I live in Oslo. I like jazz."),
        user("I like jazz. I have a dog."),
        m.Message(role=m.MESSAGE_ROLE_TOOL),
        said(m.MESSAGE_ROLE_SYSTEM, "Be brief."),
        user("My name is Sam"),
        m.Message(role=m.MESSAGE_ROLE_TOOL, parts=[returned, returned]),
        m.Message(role=m.MESSAGE_ROLE_USER, is_automated=True, parts=user("I am a clock").parts),
    ]
    no = HeardMessage("tool", "no", failed=True)
    clock = HeardMessage("system", "I am a clock")

    heard = await read(Prompt(system="You are Ada.", messages=kept(*messages)), Fragments(block=block))

    assert heard.system == "You are Ada.\nBe kind.\nBe brief."
    assert heard.facts == ("The user lives in Oslo.", "The user likes jazz.", "The user has a dog.")
    assert heard.turns == (HeardMessage("user", "My name is Sam"), no, no, clock)
    begun = await read(Prompt(messages=kept(*messages[:2])), Fragments(block=block))
    assert [turn.speaker for turn in begun.turns] == ["system", "assistant"]
    assert not begun.facts


async def test_a_result_of_a_client_is_heard_once_with_its_words_and_its_failure() -> None:
    heard = await read(Prompt(messages=kept(user("CALL look"), *called_by_client("no such file"))), Fragments())

    assert heard.turns[2:] == (HeardMessage("tool", "no such file", failed=True),)


async def test_deciding_over_much_that_is_known_leaves_everybody_else_their_turns() -> None:
    provider, asked = BuiltinProvider(fragments=Fragments()), call(*talk(4000), user("What is my name?"))
    await provider.generate(asked)

    turns, doing = 0, asyncio.ensure_future(provider.generate(asked))
    while not doing.done():
        turns += 1
        await asyncio.sleep(0)

    assert (await doing).parts[0].text.text == "Your name is Sam."
    assert turns > 20
