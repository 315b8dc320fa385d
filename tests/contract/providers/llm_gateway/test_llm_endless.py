"""What vendors send has an end: an answer that has none is given up at a known size, counted at the vendor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from letta_common.errors import AppError, LLMInvalidResponse
from tests.contract.providers.llm_gateway import hostile_answers as hostile
from tests.contract.providers.llm_gateway.conftest import Subject
from tests.contract.providers.llm_gateway.test_llm_hostile import answered
from tests.fakes.wire import Fault, Say

BUFFERS = 12 << 20
"""What connections hold on their way."""
MOST = 256 << 20
ANSWER, EVENT, STREAM, REFUSAL = 2 << 20, 16 << 20, 128 << 20, 1 << 20
SAID = Say("Hello there", calls=[("first", {"label": "x"})], reasoning="Hm.", signature="c2ln", piece=1 << 20)
DELTAS = {
    "anthropic": ("content_block_delta",),
    "openai-responses": ("response.output_text.delta", "response.function_call_arguments.delta"),
    "bedrock": ("contentBlockDelta",),
}
ENDS = frozenset({"messageStop", "message_stop", "response.completed"})
TEXTS = frozenset({"text", "content", "delta", "arguments", "partial_json", "thinking", "reasoning_content", "input"})


async def taken(subject: Subject, pieces: hostile.Endless, *, stream: bool = True) -> int:
    """Return how many bytes a call takes before it is given up for what it is."""
    with pytest.raises(LLMInvalidResponse):
        await answered(subject, stream=stream, step=hostile.raw(subject.kind, pieces, stream=stream))
    return pieces.taken


def longer(body: Any, size: int) -> Any:
    """Return an event whose texts are long."""
    return hostile.changed(body, lambda key, value: "x" * size if key in TEXTS and isinstance(value, str) else value)


def speech(subject: Subject) -> list[tuple[list[bytes], str, Any]]:
    """Return each event that says something, and what comes before it."""
    events = hostile.events(subject.kind, SAID)
    names = DELTAS.get(subject.kind)
    found = []
    for at, (name, body) in enumerate(events):
        if body != longer(body, 7) and (names is None or name in names):
            found.append(([hostile.framed(subject.kind, *each) for each in events[:at]], name, body))
    return found


async def test_a_model_that_speaks_without_end_is_stopped(subject: Subject) -> None:
    """Text, reasoning and arguments alike."""
    said = speech(subject)
    assert len(said) >= (1 if subject.kind == "google_ai" else 2)
    for before, name, body in said:
        again = hostile.framed(subject.kind, name, longer(body, 1 << 16))

        assert await taken(subject, hostile.Endless(before, again, most=MOST)) < 2 * ANSWER + BUFFERS


async def test_one_gigantic_delta_is_no_answer(subject: Subject) -> None:
    for before, name, body in speech(subject):
        event = hostile.framed(subject.kind, name, longer(body, ANSWER + 1))
        pieces = [*before, event]

        with pytest.raises(LLMInvalidResponse):
            await answered(subject, stream=True, step=hostile.raw(subject.kind, pieces, stream=True))


async def test_parts_without_end_are_no_answer(subject: Subject) -> None:
    """A call again and again, each at a place of its own, and never the end."""
    events = [each for each in hostile.events(subject.kind, Say(calls=[("first", {})])) if each[0] not in ENDS]
    made = 0

    def calls() -> Iterator[bytes]:
        nonlocal made
        while made < 20_000:
            for name, body in events:
                if not isinstance(body, str):
                    yield hostile.framed(subject.kind, name, hostile.changed(body, place))
            made += 1

    def place(key: str, value: Any) -> Any:
        return made if "index" in key.lower() else value

    with pytest.raises(LLMInvalidResponse):
        await answered(subject, stream=True, step=hostile.raw(subject.kind, calls(), stream=True))
    assert made < 20_000


async def test_an_event_without_end_is_given_up(subject: Subject) -> None:
    if subject.kind == "bedrock":
        first, again = (0xFFFFFFF0).to_bytes(4) + bytes(4) + bytes(4), bytes(1 << 16)
    else:
        first, again = b'data: {"x": "', b"x" * (1 << 16)

    assert await taken(subject, hostile.Endless([first], again, most=MOST)) < EVENT + BUFFERS


async def test_a_stream_that_only_keeps_awake_is_given_up(subject: Subject) -> None:
    if subject.kind == "bedrock":
        again = hostile.framed(subject.kind, "ping", {"p": "x" * (1 << 20)})
    else:
        again = b":" + b" " * (1 << 20) + b"\n\n"

    assert await taken(subject, hostile.Endless([], again, most=MOST)) < STREAM + BUFFERS


async def test_an_answer_at_once_without_end_is_given_up(subject: Subject) -> None:
    start = json.dumps(hostile.whole(subject.kind, Say("Hello"))).encode()[:-1] + b', "more": "'

    pieces = hostile.Endless([start], b"x" * (1 << 18), most=MOST)
    assert await taken(subject, pieces, stream=False) < EVENT + BUFFERS


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_without_end_is_given_up(subject: Subject, stream: bool) -> None:
    pieces = hostile.Endless([b'{"error": "'], b"x" * (1 << 16), most=MOST)
    step = Fault("raw", status=400, headers={"content-type": "application/json"}, pieces=pieces)

    with pytest.raises(AppError) as caught:
        await answered(subject, stream=stream, step=step)

    assert caught.value.reason.startswith("LLM_")
    assert pieces.taken < REFUSAL + BUFFERS
