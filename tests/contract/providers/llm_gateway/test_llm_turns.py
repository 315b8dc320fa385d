"""Who speaks after whom: neighbours of one role are one where a server wants users and assistants to take turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest

from letta.common.v1 import message_pb2 as m
from letta_llm_gateway.domain.answers import Call
from tests.contract.providers.llm_gateway.conftest import Subject
from tests.contract.providers.llm_gateway.llm_prompts import assistant, call, prompt, returned, text, tool, user

vllm = pytest.mark.parametrize("subject", ["vllm"], indirect=True)
AS_THEY_ARE = {"azure", "openai-responses"}
"""Wires of OpenAI itself, which takes any order."""
IMAGE = m.ContentPart(
    image=m.ImageContent(source=m.ImageSource(base64=m.Base64Image(data=b"png", media_type="image/png")))
)
SEEN = m.Message(role=m.MESSAGE_ROLE_USER, parts=[text("look"), IMAGE])
RULE = m.Message(role=m.MESSAGE_ROLE_SYSTEM, parts=[text("be brief")])
CALLS = (assistant(text("I try"), call("first", {}, "callAAAAA")), returned("one", "callAAAAA"))
CASES: dict[str, tuple[m.Message, ...]] = {
    "users": (user("one"), user("two"), user("three")),
    "a user with an image": (user("one"), SEEN, user("two")),
    "assistants": (user("one"), assistant(text("two")), assistant(text("three")), user("four")),
    "an assistant first": (assistant(text("one")), user("two")),
    "assistants alone": (assistant(text("one")), assistant(text("two"))),
    "a call after words": (user("one"), assistant(text("wait")), *CALLS, user("two")),
    "calls of neighbours": (
        *(user("one"), assistant(call("first", {}, "callAAAAA")), assistant(call("first", {}, "callBBBBB"))),
        *(returned("one", "callAAAAA"), returned("two", "callBBBBB"), user("two")),
    ),
    "a call first": (*CALLS, user("two")),
    "a rule first": (RULE, user("one"), user("two")),
    "a rule within": (user("one"), assistant(text("two")), RULE, user("three")),
    "a rule alone": (RULE,),
}
WORDS = ("one", "two", "three", "four", "look", "wait", "I try", "be brief", "You are Ada.")


def turns(body: dict[str, Any]) -> list[str]:
    """Return who speaks, in order."""
    rows = body.get("messages") or body.get("contents") or []
    return ["assistant" if row["role"] == "model" else row["role"] for row in rows]


def words(value: Any) -> Iterator[str]:
    """Yield the texts of a request, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from words(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key not in {"role", "type", "id", "name"}:
                yield from words(each)


async def sent(subject: Subject, *said: m.Message, stream: bool = False) -> dict[str, Any]:
    asked = prompt(*said, tools=(tool("first"),), system="You are Ada.")
    if stream:
        async with aclosing(subject.provider.stream(Call("m", asked))) as events:
            assert [event async for event in events]
    else:
        await subject.provider.generate(Call("m", asked))
    return subject.vendor.requests[-1].body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", CASES)
async def test_users_and_assistants_take_turns(subject: Subject, case: str, stream: bool) -> None:
    body = await sent(subject, *CASES[case], stream=stream)

    told = [word for word in words(body) if any(each in word.splitlines() for each in WORDS)]
    given = [part.text.text for said in CASES[case] for part in said.parts if part.HasField("text")]
    assert all(any(each in word.splitlines() for word in told) for each in given), "nothing is lost"
    if subject.kind in AS_THEY_ARE:
        return
    roles = turns(body)
    rest = [role for at, role in enumerate(roles) if role != "system" or at]
    assert rest[:1] != ["assistant"]
    assert "system" not in rest, "one message of the system, and first"
    assert not [pair for pair in pairwise(rest) if pair[0] == pair[1] != "tool"]


@pytest.mark.parametrize("subject", ["azure"], indirect=True)
async def test_openai_itself_gets_messages_as_they_are(subject: Subject) -> None:
    body = await sent(subject, *CASES["users"], *CASES["assistants"])

    assert turns(body) == ["system", *("user",) * 4, "assistant", "assistant", "user"]


@vllm
async def test_joined_words_and_images_keep_their_order(subject: Subject) -> None:
    _, said = (await sent(subject, *CASES["a user with an image"]))["messages"]

    kinds = [part.get("text") or part["type"] for part in said["content"]]
    assert kinds == ["one", "look", "image_url", "two"]


@vllm
async def test_calls_of_neighbours_stand_before_their_results(subject: Subject) -> None:
    body = await sent(subject, *CASES["calls of neighbours"])

    assert turns(body) == ["system", "user", "assistant", "tool", "tool", "user"]
    calls = [call["id"] for call in body["messages"][2]["tool_calls"]]
    assert calls == [said["tool_call_id"] for said in body["messages"][3:5]]
