"""Prompts for tests of providers."""

from __future__ import annotations

import json
from typing import Any

from letta.common.v1 import message_pb2 as m
from letta.common.v1.model_settings_pb2 import ModelSettings
from letta.llm.v1 import generation_service_pb2 as pb
from tests.support.prompts import kept

SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "new_str": {"type": "string"}},
    "required": ["label", "new_str"],
    "additionalProperties": False,
}


def text(value: str) -> m.ContentPart:
    return m.ContentPart(text=m.TextContent(text=value))


def user(value: str) -> m.Message:
    return m.Message(role=m.MESSAGE_ROLE_USER, parts=[text(value)])


def assistant(*parts: m.ContentPart) -> m.Message:
    return m.Message(role=m.MESSAGE_ROLE_ASSISTANT, parts=parts)


def call(name: str, arguments: Any, id: str = "call_0") -> m.ContentPart:
    return m.ContentPart(tool_call=m.ToolCallContent(id=id, name=name, input=json.dumps(arguments)))


def returned(value: str, id: str = "call_0", *, failed: bool = False) -> m.Message:
    part = m.ToolReturnContent(tool_call_id=id, content=value, is_error=failed)
    return m.Message(role=m.MESSAGE_ROLE_TOOL, parts=[m.ContentPart(tool_return=part)])


def tool(name: str = "memory_insert", schema: Any = None) -> pb.ToolDefinition:
    return pb.ToolDefinition(name=name, description=f"Does {name}.", parameters=json.dumps(schema or SCHEMA))


def prompt(*messages: m.Message, model: str = "m", tools: tuple[pb.ToolDefinition, ...] = (), **rest: Any) -> pb.Prompt:
    settings = rest.pop("settings", {})
    return pb.Prompt(model=model, messages=kept(*messages), tools=tools, settings=ModelSettings(**settings), **rest)
