"""Which tools vendors may be asked to hold a model to, exactly."""

from __future__ import annotations

from typing import Any

from letta.common.v1.model_settings_pb2 import ModelSettings
from letta.llm.v1.generation_service_pb2 import ToolDefinition

# What OpenAI's structured outputs take, as its guide listed them in 2025; one more makes the whole request fail.
_WORDS = """
    type properties required additionalProperties items description title enum const anyOf $defs $ref pattern format
    minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minItems maxItems
"""
_KEYWORDS = frozenset(_WORDS.split())


def is_strict(tool: ToolDefinition, settings: ModelSettings, schema: dict[str, Any]) -> bool:
    """Say whether to ask for exact arguments.

    A tool that is marked strict says so itself, and a vendor that refuses its schema names it. The setting of a model
    is meant for all of an agent's tools, so it holds for those whose schemas a vendor can take.
    """
    return tool.strict or (settings.strict and _fits(schema))


def _fits(schema: Any) -> bool:
    """Whether every object is closed and requires all that it has, and nothing is said that is not understood."""
    if not isinstance(schema, dict) or not schema.keys() <= _KEYWORDS:
        return False
    properties = schema.get("properties", {})
    if schema.get("type") == "object" or properties:
        closed = schema.get("additionalProperties") is False
        if not closed or set(schema.get("required", ())) != set(properties):
            return False
    if schema.get("type") == "array" and "items" not in schema:
        return False
    inner = [*properties.values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    return all(map(_fits, [*inner, schema["items"]] if "items" in schema else inner))
