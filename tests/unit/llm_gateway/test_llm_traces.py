"""Traces: no secret stays in them, none grows without end, and keeping them costs calls nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import FinishReason, Generation
from letta.llm.v1.usage_pb2 import ModelCall
from letta_common.errors import DatabaseUnavailable
from letta_common.values.ids import new_id
from letta_llm_gateway.domain.accounting.traces import TraceDraft, Tracing, redacted, request_of, response_of
from letta_llm_gateway.domain.accounting.usage import BookedCall, UsageWriter, WriterOptions
from letta_llm_gateway.providers.parts import call_part, text_part
from tests.fakes.llm_gateway.stores import FakeUsageStore

SECRETS = [
    "sk-proj-abcdefghijklmnopqrstuvwx",
    "sk-ant-api03-abcdefghijklmnop",
    "gsk_abcdefghijklmnopqrstuv",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "xoxb-123456789012-abcdefghijkl",
    "lk_0123456789_abcdefghijklmnop",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "Bearer abcdefgh12345678",
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqh\n-----END PRIVATE KEY-----",
]
HARMLESS = [
    "task-oriented sk-etches and desk-bound people",
    "the key-value store of agent-00000000-0000-4000-8000-000000000000",
    "a bearer of good news",
    "https://example.org/path?page=2",
    "eyJ is how such tokens begin",
]


def made(text: str = "hi", *parts) -> Generation:
    return Generation(
        parts=[text_part(text), *parts],
        finish_reason=FinishReason.FINISH_REASON_STOP,
        usage=TokenUsage(prompt_tokens=1, completion_tokens=2),
        response_id="r-1",
    )


def draft(sent: bytes = b'{"a": 1}', outcome: str = "ok", generation: Generation | None = None) -> TraceDraft:
    return TraceDraft(sent, None if sent else lambda: '{"described": true}', generation, outcome)


def record() -> BookedCall:
    return BookedCall("org-a", ModelCall(id=new_id("usage"), user_id="user-a", step_id="step-1", outcome="ok"))


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"{name}_total") or 0.0


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("place", ["{}", "my key is {}, keep it", '{{"nested": "{}"}}', "x={};"])
def test_secrets_are_taken_out_wherever_they_stand(secret, place):
    text = place.format(secret.replace("\n", "\\n") if place.startswith("{{") else secret)
    body = {"messages": [{"role": "user", "content": text}, {"role": "user", "content": [{"text": text}]}]}

    kept = request_of(draft(json.dumps(body).encode()), 1 << 20)

    assert secret not in kept
    assert secret not in json.dumps(json.loads(kept), ensure_ascii=False).replace("\\n", "\n")
    assert kept.count("[redacted]") == 2


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text):
    assert redacted({"content": text}) == {"content": text}


@pytest.mark.parametrize(
    "name", ["api_key", "apiKey", "x-api-key", "password", "client_secret", "authorization", "access_token", "token"]
)
def test_values_under_names_of_secrets_are_taken_out(name):
    assert redacted({name: "plain words", "deep": [{name: "more"}]}) == {
        name: "[redacted]",
        "deep": [{name: "[redacted]"}],
    }


def test_names_that_only_sound_like_secrets_stay():
    found = {"max_tokens": 5, "tokens": "many", "keyboard": "a", "secretary": "b", "prompt_tokens": 7, "api_key": ""}

    assert redacted(found) == found


def test_secrets_in_arguments_and_answers_are_taken_out():
    call = call_part("c", "t", json.dumps({"password": "hunter2", "city": "Rome"}))

    kept = response_of(draft(generation=made(f"use {SECRETS[0]}", call)), 1 << 20)

    assert "hunter2" not in kept
    assert SECRETS[0] not in kept
    assert "Rome" in kept


def test_images_are_left_out():
    data = "data:image/png;base64," + "iVBORw0KGgo" * 400
    kept = json.loads(request_of(draft(json.dumps({"url": data, "raw": "QUJD" * 600}).encode()), 1 << 20))

    assert kept == {"url": "[left out]", "raw": "[left out]"}


@pytest.mark.parametrize("sent", [b'{"text": "' + b"word " * 5000 + b'"}', b"no json " * 4000, b"{" * 100_000])
def test_what_is_too_long_is_cut_and_stays_an_object(sent):
    kept = request_of(draft(sent), 4096)

    assert len(kept.encode()) <= 4096 + 100
    found = json.loads(kept)
    assert found["truncated"] is True
    assert found["bytes"] >= 4096


def test_a_secret_at_the_beginning_of_a_cut_text_is_taken_out_too():
    sent = json.dumps({"a": SECRETS[0], "b": "word " * 10_000}).encode()
    for most in (4096, 64 * 1024):
        assert SECRETS[0] not in request_of(draft(sent), most)
    assert SECRETS[0] not in request_of(draft(b"x " + SECRETS[0].encode() + b" " + b"y" * 99_999), 4096)


def test_an_engine_without_a_wire_is_described():
    assert json.loads(request_of(draft(b""), 4096)) == {"described": True}


def test_half_a_character_breaks_nothing():
    text = {"text": "\ud800 broken \U0001f642", "more": "é" * 9000}

    for most in (100_000, 1001):
        request_of(draft(json.dumps(text).encode()), most).encode()


def test_the_answer_says_how_it_ended():
    kept = json.loads(response_of(draft(outcome="LLM_TIMEOUT"), 4096))
    assert kept == {"outcome": "LLM_TIMEOUT", "finish_reason": None, "parts": []}
    kept = json.loads(response_of(draft(generation=made()), 4096))
    assert (kept["usage"]["completion"], kept["response_id"], kept["finish_reason"]) == (2, "r-1", "STOP")


def test_a_share_of_the_steps_is_kept_and_each_step_whole():
    steps = [new_id("step") for _ in range(4000)]
    some = Tracing(0.25)

    kept = [step for step in steps if some.wants(step)]
    assert 800 < len(kept) < 1200
    assert kept == [step for step in steps if some.wants(step)], "every replica decides alike"
    assert all(Tracing(1.0).wants(step) for step in steps)
    assert not any(Tracing(0.0).wants(step) for step in steps)
    assert not Tracing(1.0).wants(""), "nobody could ask for it"


async def test_too_many_traces_are_dropped_and_counted_and_no_record_is():
    books = FakeUsageStore()
    writer = UsageWriter(books, WriterOptions(most_traces=5, batch=2))
    before = counted("letta_llm_traces_dropped")

    for _ in range(12):
        writer.put(record(), draft())
    assert counted("letta_llm_traces_dropped") - before == 7
    await writer.flush()

    assert (len(books.records), len(books.traces)) == (12, 5)
    writer.put(record(), draft())
    await writer.flush()
    assert len(books.traces) == 6, "what was written makes room"


async def test_traces_hold_only_so_much_memory():
    books = FakeUsageStore()
    writer = UsageWriter(books, WriterOptions(most_trace_bytes=50_000))
    for _ in range(10):
        writer.put(record(), draft(b'{"a": "' + b"x" * 20_000 + b'"}'))
    await writer.flush()

    assert (len(books.records), len(books.traces)) == (10, 2)


@pytest.mark.parametrize("held", [{"prompt_bytes": 20_000}, {"made": made("x" * 20_000)}])
async def test_prompts_that_wait_to_be_described_and_answers_count_as_memory(held):
    books = FakeUsageStore()
    writer = UsageWriter(books, WriterOptions(most_trace_bytes=50_000))
    for _ in range(10):
        writer.put(record(), replace(TraceDraft(b"", lambda: "{}", None, "ok"), **held))
    await writer.flush()

    assert (len(books.records), len(books.traces)) == (10, 2)


async def test_too_many_records_lose_the_oldest_and_say_so():
    books = FakeUsageStore()
    writer = UsageWriter(books, WriterOptions(most=3))
    before = counted("letta_llm_usage_lost")
    rows = [record() for _ in range(5)]
    for row in rows:
        writer.put(row)
    await writer.flush()

    assert list(books.records.values()) == rows[2:]
    assert counted("letta_llm_usage_lost") - before == 2


class Broken(FakeUsageStore):
    """Books that fail as they are told."""

    error: Exception | None = None

    async def create(self, records, traces):
        if self.error is not None:
            raise self.error
        await super().create(records, traces)


async def test_a_database_that_is_away_delays_and_a_batch_that_cannot_be_written_is_counted():
    books = Broken()
    writer = UsageWriter(books)
    books.error = DatabaseUnavailable("away")
    writer.put(record(), draft())
    assert not await writer.flush()
    assert not books.records

    books.error = None
    assert await writer.flush()
    assert (len(books.records), len(books.traces)) == (1, 1)

    lost, dropped = counted("letta_llm_usage_lost"), counted("letta_llm_traces_dropped")
    books.error = ValueError("no such column")
    writer.put(record(), draft())
    assert await writer.flush(), "nothing is left to write"
    assert counted("letta_llm_usage_lost") - lost == counted("letta_llm_traces_dropped") - dropped == 1


async def test_a_trace_that_cannot_be_written_down_costs_only_itself():
    books = FakeUsageStore()
    writer = UsageWriter(books)

    def burst() -> str:
        raise RuntimeError("no description")

    writer.put(record(), TraceDraft(b"", burst, None, "ok"))
    writer.put(record(), draft())
    await writer.flush()

    assert (len(books.records), len(books.traces)) == (2, 1)


async def test_the_writer_writes_what_is_left_when_it_closes():
    books = FakeUsageStore()
    writer = UsageWriter(books, WriterOptions(pause=0.001))
    writer.start()
    writer.put(record(), draft())
    await writer.close()

    assert (len(books.records), len(books.traces)) == (1, 1)
