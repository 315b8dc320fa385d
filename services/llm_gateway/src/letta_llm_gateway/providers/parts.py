"""Parts of answers as messages: what vendors wrote may hold halves of characters, which no message can."""

from __future__ import annotations

from collections.abc import Iterable

from letta.common.v1.message_pb2 import (
    ContentPart,
    ReasoningContent,
    RedactedReasoningContent,
    TextContent,
    ToolCallContent,
)
from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import FinishReason, Generation
from letta_llm_gateway.providers.errors import redacted
from letta_llm_gateway.providers.wires.wire_json import clean

_MOST_NAME = 256


def text_part(text: str = "", signature: str | None = None) -> ContentPart:
    """Return a text."""
    return ContentPart(text=TextContent(text=clean(text), signature=_signed(signature)))


def reasoning_part(text: str = "", signature: str | None = None) -> ContentPart:
    """Return reasoning in clear, with the signature that must be sent back."""
    told = ReasoningContent(is_native=True, reasoning=clean(text), signature=_signed(signature))
    return ContentPart(reasoning=told)


def redacted_part(data: str) -> ContentPart:
    """Return reasoning that the vendor encrypted."""
    return ContentPart(redacted_reasoning=RedactedReasoningContent(data=clean(data)))


def call_part(id: str, name: str, arguments: str = "", signature: str | None = None) -> ContentPart:
    """Return the wish to call a tool."""
    call = ToolCallContent(id=id, name=_plain(name), input=clean(arguments), signature=_signed(signature))
    return ContentPart(tool_call=call)


def answer_of(
    finish: FinishReason.ValueType,
    usage: TokenUsage | None = None,
    response_id: str = "",
    parts: Iterable[ContentPart] = (),
    why: str = "",
) -> Generation:
    """Return an answer; `why` is what the vendor says of one that it blocked."""
    if why:
        why = redacted(" ".join(clean(why).replace("\0", "").split()))
    return Generation(
        parts=parts, finish_reason=finish, usage=usage, response_id=_plain(response_id), filter_reason=why
    )


def _plain(text: str) -> str:
    """Return a name without halves of characters and without NUL, which no column of names stores."""
    return clean(text).replace("\0", "")[:_MOST_NAME]


def _signed(signature: str | None) -> str | None:
    return clean(signature) if signature else None
