"""A failed call of a vendor is one line of the log, which says where and why; no key is in it, and nothing asked."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from letta.common.v1 import message_pb2 as m
from letta_common.errors import AppError
from letta_llm_gateway.domain.answers import Call
from tests.contract.providers.llm_gateway.conftest import Subject
from tests.contract.providers.llm_gateway.llm_prompts import assistant, call, prompt, returned, text, tool, user
from tests.fakes.bedrock_server import KEYS, BedrockServer
from tests.fakes.vertex_server import TOKEN, VertexServer
from tests.fakes.wire import Fault

TEXTS = ("my doctor's name is Dr. Wu", "I live in the house by the old mill, third door", "You are Ada.", "milk & eggs")
LONG = "The first line of a long letter\n" + "that goes on for many words, and on, and on. " * 30
ASKED = prompt(
    user(TEXTS[0]),
    assistant(text(TEXTS[1]), call("first", {"label": TEXTS[3]})),
    returned(LONG),
    m.Message(role=m.MESSAGE_ROLE_USER, parts=[text("and now?")]),
    tools=(tool("first"),),
    system=TEXTS[2],
)
REPEATED = f"Invalid value: {TEXTS[0]!r} after {TEXTS[1]} and {json.dumps(LONG)[1:200]} for keys sk-abcdefgh12345"


def refused(status: int, said: str = REPEATED) -> Fault:
    return Fault(status=status, body={"error": {"message": said}})


FAILURES: dict[str, tuple[Fault | None, str, str]] = {
    "a refusal": (refused(400, "unheard of"), "LLM_BAD_REQUEST", "unheard of"),
    "one that repeats": (refused(400), "LLM_BAD_REQUEST", "Invalid value"),
    "a refused key": (refused(401), "LLM_AUTHENTICATION", "Invalid value"),
    "a fault that repeats": (refused(500), "LLM_UNAVAILABLE", "Invalid value"),
    "a reset": (Fault("reset"), "LLM_UNAVAILABLE", ""),
    "no JSON": (Fault("truncated"), "LLM_INVALID_RESPONSE", ""),
    "too much": (Fault("raw", 200, pieces=[b"x" * (1 << 20)] * 20), "LLM_INVALID_RESPONSE", ""),
    "nobody": (None, "LLM_UNAVAILABLE", ""),
}


async def answered(subject: Subject, *, stream: bool) -> None:
    if stream:
        _ = [event async for event in subject.provider.stream(Call("m", ASKED))]
    else:
        await subject.provider.generate(Call("m", ASKED))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", FAILURES)
async def test_a_failure_is_told_with_its_place_and_cause_and_nothing_secret(
    subject: Subject, what: str, stream: bool
) -> None:
    fault, reason, said = FAILURES[what]
    secret = {BedrockServer: KEYS["AKIATEST"], VertexServer: TOKEN}.get(type(subject.vendor), "sk-test")
    place = urlsplit(subject.vendor.url).netloc
    if fault is None:
        await subject.vendor.close()
    else:
        body = fault.body and {"error": {"message": f"{secret} {fault.body['error']['message']}"}}
        subject.vendor.say(replace(fault, body=body))

    with capture_logs() as logs, pytest.raises(AppError) as caught:
        await answered(subject, stream=stream)

    assert caught.value.reason == reason
    [line] = [entry for entry in logs if entry["event"] == "a vendor failed"]
    assert line["log_level"] == "info"
    assert urlsplit(line["address"]).netloc == place
    assert (line["model"], line["reason"]) == ("m", reason)
    assert said in line["said"]
    assert line["cause"]
    told = json.dumps(logs, ensure_ascii=False)
    assert not [each for each in (secret, "sk-abcdefgh", *TEXTS, LONG[:31], LONG[40:80]) if each in told]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_is_ended_while_the_vendor_is_silent_is_told_with_its_place(
    subject: Subject, stream: bool
) -> None:
    subject.vendor.say(Fault("hang"))
    with capture_logs() as logs:
        asking = asyncio.create_task(answered(subject, stream=stream))
        await asyncio.wait_for(subject.vendor.asked.wait(), 10)
        asking.cancel()
        await asyncio.wait([asking])

    [line] = [entry for entry in logs if entry["event"] == "a call of a vendor was ended"]
    assert line["log_level"] == "info"
    assert urlsplit(line["address"]).netloc == urlsplit(subject.vendor.url).netloc
