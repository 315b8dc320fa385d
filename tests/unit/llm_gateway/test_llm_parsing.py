"""Reading what vendors send: arguments, events, chunks, refusals."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta_common.errors import LLMAuthentication, LLMInvalidResponse, LLMRateLimit, LLMUnavailable
from letta_llm_gateway.domain.answers import Completed, Delta, FinishReason, Reasoning, Started, Text, ToolCall
from letta_llm_gateway.providers import sse
from letta_llm_gateway.providers.arguments import checked
from letta_llm_gateway.providers.errors import redacted, refusal, retry_after, stream_refusal
from letta_llm_gateway.providers.openai_wire import StreamReader, ThinkSplitter, answer, split_thinking

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def read(raw: object) -> object:
    return json.loads(checked(raw, tool="t", vendor="v"))


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_good_arguments_are_read_as_they_are(value):
    assert read(json.dumps(value)) == value
    assert read(value) == value
    assert read(json.dumps(json.dumps(value))) == value


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("", {}),
        (None, {}),
        ("  ", {}),
        ('{"a": 1,}', {"a": 1}),
        ('```json\n{"a": [1, 2,],}\n```', {"a": [1, 2]}),
        ('{"a": {"b": [1', {"a": {"b": [1]}}),
        ('{"a": "line\nbreak"}', {"a": "line\nbreak"}),
    ],
)
def test_what_can_be_repaired_without_guessing_is(raw, value):
    assert read(raw) == value


@pytest.mark.parametrize(
    "raw", ["[1]", "3", '"text"', "null", "{a: 1}", '{"a": "cut in the te', "not json", "{" * 100_000]
)
def test_other_arguments_are_refused_by_name(raw):
    with pytest.raises(LLMInvalidResponse, match="tool t"):
        checked(raw, tool="t", vendor="v")


async def chunks(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_events_are_read_however_they_are_cut(size):
    data = b': comment\nevent: x\ndata: {"a": "\xf0\x9f\x99\x82"}\r\n\r\ndata: one\ndata: two\n\ndata:last'

    assert [event async for event in sse.events(chunks(data, size), vendor="v")] == ['{"a": "🙂"}', "one\ntwo", "last"]


async def test_wrong_utf8_does_not_end_a_stream():
    assert [e async for e in sse.events(chunks(b"data: \xff\xfe\n\n", 4), vendor="v")] == ["��"]


async def test_an_event_without_end_is_refused():
    with pytest.raises(LLMInvalidResponse, match="more than 100 bytes"):
        async for _ in sse.events(chunks(b"data: " + b"x" * 500, 64), vendor="v", limit=100):
            pass


def chunk(finish: str | None = None, **delta: object) -> dict[str, object]:
    return {"id": "c", "choices": [{"delta": delta, "finish_reason": finish}]}


def fed(*items: object) -> list[object]:
    reader = StreamReader(vendor="v", model="m")
    return [*(event for item in items for event in reader.feed(item)), *reader.end()]


def call(index: int, arguments: str, id: str | None = None, name: str | None = None) -> dict[str, object]:
    return {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}


def test_a_server_that_gives_every_call_index_0_is_understood():
    got = fed(
        chunk(tool_calls=[call(0, "{}", "a", "x")]), chunk(tool_calls=[call(0, "{}", "b", "y")]), chunk(finish="stop")
    )

    started = [event.part for event in got if isinstance(event, Started)]
    assert started == [ToolCall("a", "x"), ToolCall("b", "y")]
    assert got[-1] == Completed(FinishReason.TOOL_CALLS, None, "c")


def test_a_call_without_id_gets_one_and_one_without_name_is_refused():
    [started] = [
        e for e in fed(chunk(tool_calls=[call(0, "{}", None, "x")]), chunk(finish="stop")) if isinstance(e, Started)
    ]
    assert started.part.id.startswith("call_")
    with pytest.raises(LLMInvalidResponse, match="without naming"):
        fed(chunk(tool_calls=[call(0, "{}", "a", None)]))


@pytest.mark.parametrize("item", [[], "text", 3])
def test_chunks_that_are_no_objects_are_refused(item):
    with pytest.raises(LLMInvalidResponse):
        fed(item)


def test_chunks_without_choices_are_skipped():
    assert fed({"id": "c"}, {"choices": []}, chunk(content="a"), chunk(finish="stop"))[1] == Delta(0, "a")


@pytest.mark.parametrize("body", [[], {}, {"choices": None}, {"choices": [None]}, {"choices": [{"message": None}]}])
def test_answers_without_a_choice_are_refused(body):
    with pytest.raises(LLMInvalidResponse):
        answer(body, vendor="v")


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>Hm, 1 < 2.</think>\n\nYes.", [("reasoning", "Hm, 1 < 2."), ("text", "Yes.")]),
        ("<think></think>Yes.", [("text", "Yes.")]),
        ("<thinner> is no tag", [("text", "<thinner> is no tag")]),
        ("<think>never closed", [("reasoning", "never closed")]),
        ("plain <think>late</think>", [("text", "plain <think>late</think>")]),
    ],
)
def test_think_tags_become_reasoning_however_they_are_cut(text, parts, size):
    splitter = ThinkSplitter()
    got: list[tuple[str, str]] = []
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    for kind, piece in [*(found for cut in pieces for found in splitter.feed(cut)), *splitter.flush()]:
        if got and got[-1][0] == kind:
            got[-1] = (kind, got[-1][1] + piece)
        else:
            got.append((kind, piece))
    assert [(kind, piece.lstrip()) for kind, piece in got] == parts


def test_think_tags_of_a_whole_answer_become_reasoning():
    assert split_thinking("<think>a</think>b") == [Reasoning("a"), Text("b")]
    assert split_thinking("b") == [Text("b")]
    assert split_thinking("") == []


def test_retry_after_is_read_in_all_its_forms():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)

    assert retry_after({"retry-after": "7"}) == "7"
    assert retry_after({"retry-after-ms": "1500"}) == "1.5"
    assert 50 < float(retry_after({"retry-after": soon}) or 0) <= 60
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize("secret", ["sk-abcdef123456", "Bearer abcdefgh", "gsk_abcdefgh", "sk-ant-api03-abc_def"])
def test_keys_are_taken_out_of_vendors_texts(secret):
    assert secret not in redacted(f"Incorrect API key provided: {secret}.")
    assert secret not in str(refusal("v", 401, f"bad {secret}"))


def test_errors_within_a_stream_are_typed():
    assert isinstance(stream_refusal("v", {"type": "overloaded_error", "message": "x"}), LLMUnavailable)
    assert isinstance(stream_refusal("v", {"code": 429, "message": "x"}), LLMRateLimit)
    assert isinstance(stream_refusal("v", {"code": "authentication_error"}), LLMAuthentication)
    assert isinstance(stream_refusal("v", "boom"), LLMUnavailable)
