"""Which tools a model is held to exactly."""

import json

import pytest

from letta.common.v1.model_settings_pb2 import ModelSettings
from letta.llm.v1.generation_service_pb2 import Prompt, ToolDefinition
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers.vendors import anthropic as anthropic_wire
from letta_llm_gateway.providers.vendors import bedrock as bedrock_wire
from letta_llm_gateway.providers.vendors import openai as responses_wire
from letta_llm_gateway.providers.wires import chat as openai_wire
from tests.support.prompts import sent

CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def changed(**more):
    return {**CLOSED, **more}


FIT = [
    CLOSED,
    {"type": "object", "properties": {}, "additionalProperties": False},
    changed(properties={"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}),
    changed(properties={"a": {"type": "array", "items": CLOSED}}),
    changed(properties={"a": {"$ref": "#/$defs/A"}}, **{"$defs": {"A": CLOSED}}),
]
OPEN = [
    {"type": "object", "properties": {}},
    changed(additionalProperties=True),
    changed(additionalProperties={"type": "string"}),
    changed(required=[]),
    changed(properties={"a": {"type": "array"}}),
    changed(properties={"a": {"type": "string", "default": "x"}}),
    changed(properties={"a": True}),
    changed(properties={"a": {"type": "array", "items": changed(required=[])}}),
    changed(properties={"a": {"anyOf": [{"type": "string"}, {"type": "object"}]}}),
    changed(**{"$defs": {"A": {"type": "object"}}}),
    changed(oneOf=[CLOSED]),
]


def asked(schema, *, settings=False, tool=False):
    """Return whether each vendor is asked to hold a model to a tool."""
    definition = ToolDefinition(name="f", parameters=json.dumps(schema), strict=tool)
    prompt = Prompt(model="m", tools=[definition], settings=ModelSettings(strict=settings))
    tools = [
        sent(openai_wire.request("m", prompt, Fragments(), official=True))["tools"][0]["function"],
        sent(responses_wire.request("m", prompt, Fragments(), official=True))["tools"][0],
        sent(anthropic_wire.request("m", prompt, Fragments()))["tools"][0],
        sent(bedrock_wire.request("m", prompt, Fragments()))["toolConfig"]["tools"][0]["toolSpec"],
    ]
    return {told.get("strict", False) for told in tools}


@pytest.mark.parametrize("schema", FIT, ids=json.dumps)
def test_the_setting_of_a_model_holds_for_tools_that_can_be_strict(schema):
    assert asked(schema, settings=True) == {True}


@pytest.mark.parametrize("schema", OPEN, ids=json.dumps)
def test_a_tool_that_cannot_be_strict_does_not_spoil_the_request(schema):
    assert asked(schema, settings=True) == {False}


@pytest.mark.parametrize("schema", [*FIT, *OPEN], ids=json.dumps)
def test_a_tool_that_says_so_itself_is_strict_and_no_other(schema):
    assert asked(schema, tool=True) == {True}
    assert asked(schema) == {False}
