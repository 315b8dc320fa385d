"""A step reads and writes its new messages alone, however long the history, and what was kept says what is true."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from letta.common.v1 import message_pb2 as m
from letta.llm.v1.generation_service_pb2 import Prompt
from letta_common.errors import InvalidArgument
from letta_llm_gateway.domain.generation.facts import facts_of, tokens_of
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers import checks
from letta_llm_gateway.providers.fitting.call_ids import RequestIds
from letta_llm_gateway.providers.fitting.kits import fit
from letta_llm_gateway.providers.vendors import anthropic, bedrock, google
from letta_llm_gateway.providers.vendors import openai as responses
from letta_llm_gateway.providers.wires import chat as openai
from letta_llm_gateway.providers.wires.bodies import Body
from tests.support.prompts import at_once, kept


async def google_body(prompt: Prompt, fragments: Fragments) -> bytes:
    return b"[%s]" % (await google.request(prompt, fragments))[0]


async def body(request: Awaitable[Body]) -> bytes:
    return (await request).encoded()


WIRES: dict[str, Callable[[Prompt, Fragments], Coroutine[Any, Any, bytes]]] = {
    "openai": lambda prompt, kept: body(openai.request("m", prompt, kept, official=True)),
    "compatible": lambda prompt, kept: body(openai.request("m", prompt, kept, official=False, thoughts=True)),
    "responses": lambda prompt, kept: body(responses.request("gpt-5", prompt, kept, official=True)),
    "anthropic": lambda prompt, kept: body(anthropic.request("claude", prompt, kept)),
    "bedrock": lambda prompt, kept: body(bedrock.request("anthropic.claude", prompt, kept)),
    "google": google_body,
}
STEP = 4
"""Messages that the conversation grows by at each step."""


def text(value: str, signature: str = "") -> m.ContentPart:
    return m.ContentPart(text=m.TextContent(text=value, signature=signature or None))


def conversation(length: int) -> list[bytes]:
    """Return messages of users, calls, results and answers in turn."""
    said = []
    for at in range(length):
        id = f"call{at // STEP:05d}"
        call = m.ToolCallContent(id=id, name="look", input='{"x": 1}')
        back = m.ToolReturnContent(tool_call_id=id, name="look", content=f"result {at}")
        said.append(
            [
                m.Message(role=m.MESSAGE_ROLE_USER, parts=[text(f"question {at}")]),
                m.Message(role=m.MESSAGE_ROLE_ASSISTANT, parts=[m.ContentPart(tool_call=call)]),
                m.Message(role=m.MESSAGE_ROLE_TOOL, parts=[m.ContentPart(tool_return=back)]),
                m.Message(role=m.MESSAGE_ROLE_ASSISTANT, parts=[text(f"answer {at}")]),
            ][at % STEP]
        )
    return kept(*said)


async def asking(wire: str, messages: list[bytes], fragments: Fragments) -> bytes:
    """Do with a prompt what a call does, up to the bytes that go out."""
    prompt = Prompt(model="m", messages=messages)
    tokens_of(prompt, await facts_of(prompt.messages, fragments))
    kit = await fit(prompt, checks.ANY, lambda _: "", fragments)
    return await WIRES[wire](kit.prompt, fragments)


def asked(wire: str, messages: list[bytes], fragments: Fragments) -> bytes:
    return at_once(asking(wire, messages, fragments))


def reads_of_a_step(wire: str, length: int) -> int:
    messages, fragments = conversation(length + STEP), Fragments()
    asked(wire, messages[:length], fragments)
    before = fragments.read
    asked(wire, messages, fragments)
    return fragments.read - before


@pytest.mark.parametrize("wire", WIRES)
def test_a_step_reads_its_new_messages_alone_whatever_came_before(wire):
    few, many = reads_of_a_step(wire, 12), reads_of_a_step(wire, 1000)

    assert few == many
    forms, rest = divmod(few, STEP)
    assert rest == 0
    assert forms <= 4, "size, calls, what goes out, and at Google the names of calls: each reads a message once"


@pytest.mark.parametrize("wire", WIRES)
def test_a_step_that_asks_again_reads_nothing(wire):
    messages, fragments = conversation(70), Fragments()
    first = asked(wire, messages, fragments)
    before = fragments.read

    assert asked(wire, messages, fragments) == first
    assert fragments.read == before


IDS = st.sampled_from(["call00001", "call00002", "bad id", ""])
PARTS = st.one_of(
    st.builds(text, st.text(max_size=5), st.sampled_from(["", "google:c2ln"])),
    st.builds(
        lambda id: m.ContentPart(
            tool_call=m.ToolCallContent(id=id, name=f"t-{id}", input='{"n": 12345678901234567890123}')
        ),
        IDS,
    ),
    st.builds(lambda id: m.ContentPart(tool_return=m.ToolReturnContent(tool_call_id=id, content="back")), IDS),
    st.builds(
        lambda sign: m.ContentPart(reasoning=m.ReasoningContent(reasoning="hm", signature=sign or None)),
        st.sampled_from(["", "own", "openai:rs_1:x"]),
    ),
    st.just(
        m.ContentPart(
            image=m.ImageContent(source=m.ImageSource(base64=m.Base64Image(data=b"p", media_type="image/png")))
        )
    ),
)
MESSAGES = st.lists(
    st.builds(lambda role, parts: m.Message(role=role, parts=parts), st.integers(1, 6), st.lists(PARTS, max_size=3)),
    max_size=12,
)


# An example is made once and told over all wires: making it costs more than telling it.
@settings(deadline=None)
@given(messages=MESSAGES)
def test_a_history_is_told_alike_however_it_is_cut_into_blocks(messages):
    for wire in WIRES:
        told = {asked(wire, kept(*messages), Fragments(block=block)) for block in (1, 2, 3, 32)}

        assert len(told) == 1, wire
        json.loads(told.pop())


@settings(deadline=None)
@given(messages=MESSAGES)
def test_a_history_that_grew_is_told_as_one_that_is_new(messages):
    history = kept(*messages)
    for wire in WIRES:
        fragments = Fragments(block=3)
        grown = [asked(wire, history[:length], fragments) for length in range(len(history) + 1)]

        assert grown[-1] == asked(wire, history, Fragments(0)), wire


def test_memory_stays_within_its_bound_and_a_large_message_drives_out_no_others():
    fragments = Fragments(100_000)
    small = conversation(20)
    asked("openai", small, fragments)
    before = fragments.read
    large = m.Message(role=m.MESSAGE_ROLE_USER, parts=[text("x" * 50_000)])
    asked("openai", [*small, *kept(large)], fragments)
    again = fragments.read
    asked("openai", small, fragments)

    assert fragments.read == again > before
    asked("openai", conversation(3000), fragments)
    assert 0 < fragments.bytes_kept <= 100_000


@pytest.mark.parametrize("wire", WIRES)
def test_a_history_larger_than_the_memory_finds_its_beginning_at_each_step(wire):
    messages, fragments = conversation(2000), Fragments(200_000)
    reads = []
    for _ in range(3):
        before = fragments.read
        told = asked(wire, messages, fragments)
        reads.append(fragments.read - before)

    assert reads[2] == reads[1] < reads[0]
    assert fragments.bytes_kept <= 200_000
    assert told == asked(wire, messages, Fragments())


def test_a_block_takes_the_place_of_its_messages():
    fragments = Fragments()
    asked("openai", conversation(31), fragments)
    alone = fragments.bytes_kept
    asked("openai", conversation(32), fragments)

    assert fragments.bytes_kept < alone / 2


def test_bytes_that_are_no_message_are_refused():
    with pytest.raises(InvalidArgument) as refused:
        at_once(facts_of([b"\xff\xff"], Fragments()))
    assert refused.value.metadata["field"] == "prompt.messages"


SLICE = 64
"""Messages that are read at most before everybody else gets a turn, and as many again where the last block ends."""


async def reads_between_turns(work: Awaitable[object], fragments: Fragments) -> list[int]:
    """Do some work beside somebody who wants every turn; return how many messages were read from turn to turn."""
    seen, doing = [fragments.read], asyncio.ensure_future(work)
    while not doing.done():
        await asyncio.sleep(0)
        seen.append(fragments.read)
    await doing
    return [later - earlier for earlier, later in itertools.pairwise(seen)]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("most_bytes", [64 << 20, 0], ids=["kept", "nothing-kept"])
async def test_a_long_history_that_is_new_leaves_everybody_else_their_turns(wire, most_bytes):
    messages, fragments = conversation(17_000), Fragments(most_bytes)

    between = await reads_between_turns(asking(wire, messages, fragments), fragments)

    assert sum(between) >= 2 * len(messages)
    assert max(between) <= 2 * SLICE


async def test_a_history_that_is_told_anew_leaves_everybody_else_their_turns():
    fragments = Fragments()
    call = m.ContentPart(tool_call=m.ToolCallContent(id="no id that goes out", name="look", input="{}"))
    messages = kept(*[m.Message(role=m.MESSAGE_ROLE_ASSISTANT, parts=[call])] * 3000)

    between = await reads_between_turns(fit(Prompt(messages=messages), checks.ANY, lambda _: "", fragments), fragments)

    assert sum(between) >= len(messages)
    assert max(between) <= 2 * SLICE


@pytest.mark.parametrize("id", ["no id that goes out", "callAAAAA"])
def test_an_id_that_all_calls_have_is_made_anew_once_for_each(id):
    ids, tries = RequestIds(), 0

    def watch(frame: FrameType, event: str, _: Any) -> None:
        nonlocal tries
        tries += event == "call" and frame.f_code.co_name == "_made"

    sys.setprofile(watch)
    try:
        told = {ids.call(id) for _ in range(1_000)}
    finally:
        sys.setprofile(None)

    assert len(told) == 1_000
    assert tries <= 1_000


async def test_a_message_of_usual_length_never_waits_for_its_turn():
    fragments = Fragments()
    messages = conversation(1000)
    await asking("openai", messages[:-STEP], fragments)

    assert len(await reads_between_turns(asking("openai", messages, fragments), fragments)) == 1
