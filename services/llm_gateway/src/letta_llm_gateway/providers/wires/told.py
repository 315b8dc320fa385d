"""What wires tell alike: schemas of tools and answers, limits, arguments and images of the history."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

from letta.common.v1.message_pb2 import ImageContent, Message, MessageRole
from letta.common.v1.model_settings_pb2 import THINKING_TYPE_ENABLED, ModelSettings
from letta.llm.v1.generation_service_pb2 import Prompt, ToolChoiceMode, ToolDefinition
from letta_common.errors import LLMBadRequest
from letta_llm_gateway.providers.wires.wire_json import whole

Json = dict[str, Any]
Limit = TypeVar("Limit", int, int | None)
CHOICE = {
    ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED: "required",
    ToolChoiceMode.TOOL_CHOICE_MODE_NONE: "none",
}
"""Ways to choose a tool, in the words of OpenAI's wires."""
ANSWER_TOKENS = 4096
"""Room for an answer of Claude where nobody says more: the most that the smallest Claude 3 models may say."""
_LEAST_THOUGHTS = 1024
"""The smallest budget for thoughts that Claude takes."""
# Python reads an escaped half of a character, and no encoder can write it again.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


@lru_cache(maxsize=1024)
def parsed(text: str) -> Json:
    """Return a JSON object; the one object for the same text, so it must not be changed. Raises LLMBadRequest."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LLMBadRequest(f"this is no JSON: {text[:100]}") from error
    if not isinstance(value, dict):
        raise LLMBadRequest(f"this is no JSON object: {text[:100]}")
    found: Json = whole(value) if _HALF.search(text) else value
    return found


def schema(tool: ToolDefinition) -> Json:
    """Return the schema of a tool's arguments. Raises LLMBadRequest, naming the tool."""
    try:
        return (parsed(tool.parameters) if tool.parameters else {}) or {"type": "object", "properties": {}}
    except LLMBadRequest as error:
        raise LLMBadRequest(f"tool {tool.name!r} has no usable schema: {error}", tool=tool.name) from error


def answer_schema(prompt: Prompt) -> Json | None:
    """Return the schema that the answer shall follow, if any. Raises LLMBadRequest."""
    form = prompt.settings.response_format
    if not form.HasField("json_schema"):
        return None
    try:
        return parsed(form.json_schema.json_schema.schema)
    except LLMBadRequest as error:
        raise LLMBadRequest(f"the schema of response_format cannot be used: {error}", field="schema") from error


def given_arguments(text: str) -> Json:
    """Return the arguments of a call of the history, which is told again even when nobody can read them."""
    try:
        return parsed(text) if text else {}
    except LLMBadRequest:
        return {"arguments": text}


def told_arguments(text: str) -> str:
    """Return the arguments of a call of the history as text, without halves of characters in its escapes."""
    if not _HALF.search(text):
        return text or "{}"
    try:
        return json.dumps(parsed(text), ensure_ascii=False)
    except LLMBadRequest:
        return text


def thoughts_of(settings: ModelSettings) -> tuple[Json, int] | None:
    """Return how Claude is told to think, and the least limit of such an answer; None when it shall not think.

    Thoughts count towards the limit, which must be larger than their budget.
    """
    if not settings.HasField("thinking") or settings.thinking.type != THINKING_TYPE_ENABLED:
        return None
    budget = max(_LEAST_THOUGHTS, settings.thinking.budget_tokens)
    return {"type": "enabled", "budget_tokens": budget}, budget + ANSWER_TOKENS


def is_models(message: Message) -> bool:
    """Say whether the model said a message: its own, or a call that waits for approval."""
    waits = message.role == MessageRole.MESSAGE_ROLE_APPROVAL and not message.approvals
    return waits or message.role == MessageRole.MESSAGE_ROLE_ASSISTANT


def limit_of(settings: ModelSettings, allowed: Limit) -> Limit:
    """Return the most tokens that an answer may have: what the agent says, else what the model allows."""
    return settings.max_output_tokens if settings.HasField("max_output_tokens") else allowed


def held_image(image: ImageContent) -> tuple[str, bytes]:
    """Return type and bytes of an image that is in its message; no bytes when it is not."""
    source = image.source
    held = source.base64 if source.HasField("base64") else source.letta
    return held.media_type or "image/png", held.data


def image_url(image: ImageContent) -> str:
    """Return the address of an image, a data URL when the image is in the message."""
    if image.source.HasField("url"):
        return image.source.url.url
    form, data = held_image(image)
    return f"data:{form};base64,{base64.b64encode(data).decode()}" if data else ""


class CalledNamesRecipe:
    """The names of the tools that were called, by the ids of the calls."""

    def made(self, message: Message) -> dict[str, str]:
        """Return the names in one message."""
        calls = (part.tool_call for part in message.parts if part.HasField("tool_call"))
        return {call.id: call.name for call in calls}

    def joined(self, parts: Sequence[dict[str, str]]) -> dict[str, str]:
        """Return the names in messages that follow each other."""
        return {id: name for part in parts for id, name in part.items()}

    def size(self, made: dict[str, str]) -> int:
        """Return about how many bytes they are."""
        return 200 * (1 + len(made))


CALLED_NAMES = CalledNamesRecipe()
