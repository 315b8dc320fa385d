"""Reading what vendors send: arguments, events, chunks, refusals."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta.common.v1.message_pb2 import ContentPart
from letta.llm.v1.generation_service_pb2 import FinishReason, PartStarted
from letta_common.errors import LLMAuthentication, LLMInvalidResponse, LLMRateLimit, LLMUnavailable
from letta_common.values.json_texts import json_object
from letta_llm_gateway.domain.answers import Completed, Delta, Event
from letta_llm_gateway.domain.generation.streams import Assembler
from letta_llm_gateway.providers.errors import redacted, refusal, retry_after, stream_refusal, transport_errors
from letta_llm_gateway.providers.fitting.cleaning import Cleaner
from letta_llm_gateway.providers.parts import answer_of, call_part, reasoning_part, text_part
from letta_llm_gateway.providers.wires import sse, wire_json
from letta_llm_gateway.providers.wires.arguments import finished, readable
from letta_llm_gateway.providers.wires.chat import StreamReader, answer
from letta_llm_gateway.providers.wires.thinking import ThinkSplitter, split_thinking

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def read(raw: object) -> object:
    return json.loads(readable(raw))


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_good_arguments_are_read_as_they_are(value):
    assert read(json.dumps(value)) == value
    assert read(json.dumps(json.dumps(value))) == value


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("", {}),
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
def test_other_arguments_are_left_as_they_came(raw):
    assert readable(raw) == raw


@pytest.mark.parametrize("objects", [False, True])
@pytest.mark.parametrize("raw", ['{"a": 1}', "{}", "", '{"a": "cut in', '{"a": 1,}'])
def test_of_an_answer_that_was_cut_only_a_last_call_that_is_surely_whole_can_be_read(raw, objects):
    calls = [call_part("1", "f", '{"b": 2}'), call_part("2", "f", raw)]
    first, last = cut(calls, objects=objects)

    assert first.tool_call.input == '{"b": 2}'
    assert (json_object(last.tool_call.input) is not None) == (not objects and raw.endswith("}"))
    assert last.tool_call.input, "nothing at all would be read as no arguments"
    assert cut([*calls, text_part("So")], objects=objects)[1].tool_call.input == readable(raw)


def cut(parts: list[ContentPart], *, objects: bool) -> list[ContentPart]:
    return list(finished(answer_of(FinishReason.FINISH_REASON_LENGTH, parts=parts), objects=objects).parts)


async def chunks(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_events_are_read_however_they_are_cut(size):
    data = b': comment\nevent: x\ndata: {"a": "\xf0\x9f\x99\x82"}\r\n\r\ndata: one\ndata: two\n\ndata:last'

    assert [event async for event in sse.events(chunks(data, size), vendor="v")] == [
        '{"a": "🙂"}'.encode(),
        b"one\ntwo",
        b"last",
    ]


async def test_wrong_utf8_does_not_end_a_stream():
    assert [e async for e in sse.events(chunks(b"data: \xff\xfe\n\n", 4), vendor="v")] == [b"\xff\xfe"]
    assert wire_json.read(b'"\xff\xfe"', "v") == "��"


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

    started = [event.part for event in got if isinstance(event, PartStarted)]
    assert [part.tool_call.name for part in started] == ["x", "y"]
    assert got[-1] == Completed(answer_of(FinishReason.FINISH_REASON_TOOL_CALLS, None, "c"))


def test_a_call_without_id_gets_one_and_one_without_name_is_refused():
    [started] = [
        e for e in fed(chunk(tool_calls=[call(0, "{}", None, "x")]), chunk(finish="stop")) if isinstance(e, PartStarted)
    ]
    assert len(started.part.tool_call.id) == 9
    with pytest.raises(LLMInvalidResponse, match="without naming"):
        fed(chunk(tool_calls=[call(0, "{}", "a", None)]))


def clean(told: list[Event]) -> list[Event]:
    cleaner = Cleaner("v")
    return [event for each in told for event in cleaner.event(each)]


def said(*items: object) -> list[object]:
    assembler = Assembler()
    for event in clean(fed(*items, chunk(finish="stop"))):
        assembler.feed(event)
    return [
        (part.tool_call.name, json.loads(part.tool_call.input)) if part.HasField("tool_call") else part
        for part in assembler.answer(finished).parts
    ]


@pytest.mark.parametrize(
    ("pieces", "calls"),
    [
        # the name comes after the id, and after the first arguments
        ([call(0, '{"q":', "a"), call(0, "1", None, "x"), call(0, "}")], [("x", {"q": 1})]),
        # the name comes with each piece
        ([call(0, "", "a", "x"), call(0, '{"q":', None, "x"), call(0, "1}", None, "x")], [("x", {"q": 1})]),
        ([call(0, "", "a", "x"), call(0, '{"q":', "a", "x"), call(0, "1}", "a", "x")], [("x", {"q": 1})]),
        # neither ids nor indices, so a name after whole arguments begins another call
        ([call(None, '{"q":1}', None, "x"), call(None, "{}", None, "x"), call(None, "", None, "y")],
         [("x", {"q": 1}), ("x", {}), ("y", {})]),
        # one index for all, pieces in turns
        ([call(0, '{"q":', "a", "x"), call(0, '{"r":', "b", "y"), call(0, "1}", "a"), call(0, "2}", "b")],
         [("x", {"q": 1}), ("y", {"r": 2})]),
        # indices begin anywhere and come in any order
        ([call(7, '{"q":', "a", "x"), call(2, '{"r":', "b", "y"), call(7, "1}"), call(2, "2}")],
         [("x", {"q": 1}), ("y", {"r": 2})]),
        # an object instead of text
        ([{"index": 0, "id": "a", "function": {"name": "x", "arguments": {"q": [1]}}}], [("x", {"q": [1]})]),
    ],
)  # fmt: skip
def test_calls_are_read_as_servers_write_them(pieces, calls):
    assert said(*(chunk(tool_calls=[piece]) for piece in pieces)) == calls
    ids = [
        e.part.tool_call.id
        for e in fed(*(chunk(tool_calls=[p]) for p in pieces), chunk(finish="stop"))
        if hasattr(e, "part")
    ]
    assert len(set(ids)) == len(calls)


def test_the_one_call_of_old_servers_is_read():
    function = {"name": "x", "arguments": '{"q": 1}'}

    assert said(chunk(function_call=function)) == [("x", {"q": 1})]
    [part] = answer({"choices": [{"message": {"function_call": function}, "finish_reason": "stop"}]}, vendor="v").parts
    assert (part.tool_call.name, part.tool_call.input) == ("x", '{"q": 1}')


def test_reasoning_within_the_content_is_read():
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": "text", "text": "So."},
    ]

    assert said(chunk(content=content[:1]), chunk(content=content[1:])) == [reasoning_part("Hm."), text_part("So.")]
    [*parts] = answer({"choices": [{"message": {"content": content}}]}, vendor="v").parts
    assert parts == [reasoning_part("Hm."), text_part("So.")]


def test_an_error_within_a_choice_is_typed():
    failed = {"error": {"code": 429, "message": "slow down"}, "delta": {}, "message": {"content": ""}}

    with pytest.raises(LLMRateLimit):
        fed({"choices": [failed]})
    with pytest.raises(LLMRateLimit):
        answer({"choices": [failed]}, vendor="v")


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), ValueError("x"), AttributeError("x"), IndexError()])
def test_answers_of_another_form_are_invalid_and_not_our_fault(error):
    with pytest.raises(LLMInvalidResponse, match="v answered in a form"), transport_errors("v"):
        raise error


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


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("known", [False, True])
def test_a_lone_closing_tag_ends_thoughts_that_the_prompt_opened(size, known):
    """The first stream of a model tells its thoughts as text and knows better at its end; the next one is right."""
    text = "because 17*23</think>\n391"
    reader = StreamReader(vendor="v", model="m", opened=known, lone_tags=True)
    assembler, told = Assembler(), []
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    chunks = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    for chunk in [*chunks, {"choices": [{"delta": {}, "finish_reason": "stop"}]}]:
        told += reader.feed(chunk)
    told += reader.end()
    for event in clean(told):
        assembler.feed(event)

    assert list(assembler.answer(lambda answer, **_: answer).parts) == [
        reasoning_part("because 17*23"),
        text_part("391"),
    ]
    assert reader.closes_alone is not known
    kinds = [event.part.WhichOneof("part") for event in told if isinstance(event, PartStarted)]
    assert kinds == (["reasoning", "text"] if known else ["text", "text"])


def test_a_lone_closing_tag_of_a_whole_answer():
    assert split_thinking("a</think>b", lone_tags=True) == [reasoning_part("a"), text_part("b")]
    assert split_thinking("a</think>b") == [text_part("a</think>b")]
    assert split_thinking("no tag", lone_tags=True) == [text_part("no tag")]


def test_think_tags_of_a_whole_answer_become_reasoning():
    assert split_thinking("<think>a</think>b") == [reasoning_part("a"), text_part("b")]
    assert split_thinking("<think>\na \n</think>\n\nb\n") == [reasoning_part("a"), text_part("b\n")]
    assert split_thinking("<think>never closed") == [reasoning_part("never closed")]
    assert split_thinking("<think>b</think>c", "a") == [reasoning_part("ab"), text_part("c")]
    assert split_thinking("b") == [text_part("b")]
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
