"""Halves of characters that a JSON text hides in its escapes: what goes to a vendor has whole ones."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest

from letta.common.v1 import message_pb2 as m
from letta.llm.v1 import generation_service_pb2 as pb
from letta.llm.v1.generation_service_pb2 import FinishReason
from tests.contract.providers.llm_gateway.conftest import Subject
from tests.contract.providers.llm_gateway.llm_prompts import assistant, prompt, returned, tool, user
from tests.contract.providers.llm_gateway.test_llm_tools import answered, both, told
from tests.fakes.wire import Say

HALVES = pytest.mark.parametrize("half", ["\\ud83d", "\\ude00", "\\uD83D", "\\ude00\\ud83d"])
PAIR = "\\ud83d\\ude00"


def texts(value: Any) -> list[str]:
    """Return all keys and texts of a JSON value, those of JSON within its texts too."""
    if isinstance(value, dict):
        return [text for key, each in value.items() for text in (key, *texts(each))]
    if isinstance(value, list):
        return [text for each in value for text in texts(each)]
    if not isinstance(value, str):
        return []
    with suppress(ValueError):
        held = json.loads(value)
        return [value, *(texts(held) if isinstance(held, (dict, list)) else [])]
    return [value]


def is_whole(subject: Subject) -> None:
    """Demand that the last request can be encoded, and what is in it too."""
    found = texts(subject.vendor.requests[-1].body)
    assert found
    for text in found:
        text.encode()
    assert any("\N{GRINNING FACE}" in text for text in found), "whole characters stay"


def called(arguments: str) -> m.Message:
    return assistant(m.ContentPart(tool_call=m.ToolCallContent(id="callAAAAA", name="odd", input=arguments)))


@both
@HALVES
async def test_in_the_schema_of_a_tool(subject: Subject, half: str, stream: bool) -> None:
    schema = (
        '{"type": "object", "properties": {"a": {"type": "string", "description": "HALF FACE", "enum": ["HALF", "x"]}'
        ', "HALF$b": {"type": "array", "items": {"const": "HALF"}}}, "required": ["HALF$b"], "title": "HALF"}'
    )
    odd = pb.ToolDefinition(name="odd", parameters=schema.replace("HALF", half).replace("FACE", PAIR))

    got = await answered(subject, prompt(user("hi"), tools=(tool("plain"), odd)), stream=stream)

    assert got.warnings == []
    assert list(told(subject)) == ["plain", "odd"]
    is_whole(subject)


@both
@HALVES
async def test_in_arguments_of_the_history(subject: Subject, half: str, stream: bool) -> None:
    said = called(f'{{"label": "{half} and {PAIR}", "{half}": ["{half}"]}}')

    got = await answered(
        subject, prompt(user("hi"), said, returned("ok", "callAAAAA"), tools=(tool("odd"),)), stream=stream
    )

    assert got.parts
    is_whole(subject)


@HALVES
async def test_in_the_form_of_an_answer(subject: Subject, half: str) -> None:
    schema = f'{{"type": "object", "title": "{half} {PAIR}"}}'
    form = {"json_schema": {"json_schema": {"name": "a", "schema": schema}}}

    got = await answered(subject, prompt(user("hi"), settings={"response_format": form}))

    assert got.finish_reason == FinishReason.FINISH_REASON_STOP
    is_whole(subject)


@both
@HALVES
async def test_in_keys_that_are_renamed(subject: Subject, half: str, stream: bool) -> None:
    schema = f'{{"type": "object", "properties": {{"${half}": {{"type": "string", "title": "{PAIR}"}}}}}}'
    odd = pb.ToolDefinition(name="odd", parameters=schema)
    asked = prompt(user("hi"), called(f'{{"${half}": "{half}"}}'), returned("ok", "callAAAAA"), tools=(odd,))
    await answered(subject, asked)
    is_whole(subject)
    [out] = told(subject)["odd"]["properties"]
    subject.vendor.say(Say(calls=[("odd", {out: "x"})]))

    got = await answered(subject, asked, stream=stream)

    [part] = got.parts
    [key] = json.loads(part.tool_call.input)
    assert key == json.loads(f'"${half}"').encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    part.tool_call.input.encode()
