"""Overviews of contexts as the contract says them."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

from letta.agent.v1 import agent_service_pb2 as pb
from letta.common.v1 import message_pb2
from letta.llm.v1.generation_service_pb2 import ToolDefinition
from letta_agent.domain.agents.context_window import Overview, tokens_of
from letta_agent.domain.context.working import slices
from letta_agent.domain.peers.memory import Message
from letta_agent.domain.peers.models import ContentPart


async def pack_overview(overview: Overview) -> pb.GetContextWindowResponse:
    """Return an overview as clients see it."""
    sections, summary = overview.sections, overview.summary
    # An item at a time: the text of a long context as a whole would hold up everybody else.
    messages = [
        json.dumps(_message(overview, message), ensure_ascii=False)
        async for part in slices(overview.messages)
        for message in part
    ]
    packed = pb.GetContextWindowResponse(
        context_window_size_max=overview.window,
        context_window_size_current=overview.tokens,
        num_messages=len(overview.messages),
        num_archival_memory=overview.passage_count,
        num_recall_memory=overview.message_count,
        num_tokens_external_memory_summary=tokens_of(sections.metadata),
        external_memory_summary=sections.metadata,
        num_tokens_system=tokens_of(overview.instructions),
        system_prompt=overview.instructions,
        num_tokens_core_memory=tokens_of(sections.memory),
        core_memory=sections.memory,
        num_tokens_tool_usage_rules=tokens_of(sections.rules),
        num_tokens_directories=tokens_of(sections.directories),
        num_tokens_summary_memory=tokens_of(summary),
        num_tokens_functions_definitions=overview.schema_tokens,
        functions_definitions=json.dumps([_function(schema) for schema in overview.schemas]),
        num_tokens_messages=overview.message_tokens,
        messages=f"[{', '.join(messages)}]",
    )
    if sections.rules:
        packed.tool_usage_rules = sections.rules
    if sections.directories:
        packed.directories = sections.directories
    if summary:
        packed.summary_memory = summary
    return packed


def _function(schema: ToolDefinition) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": schema.name,
            "description": schema.description,
            "parameters": json.loads(schema.parameters),
            "strict": schema.strict or None,
        },
    }


def _message(overview: Overview, message: Message) -> dict[str, Any]:
    calls = [part.tool_call for part in message.parts if part.HasField("tool_call")]
    returns = [part.tool_return for part in message.parts if part.HasField("tool_return")]
    thread = overview.conversation_id
    return {
        "id": message.id,
        "role": message_pb2.MessageRole.Name(message.role).removeprefix("MESSAGE_ROLE_").lower(),
        "content": [found for part in message.parts if (found := _part(part)) is not None],
        "name": message.name or None,
        "model": message.model or None,
        "created_at": message.created_at.ToDatetime(tzinfo=UTC).isoformat(),
        "agent_id": overview.agent_id,
        "conversation_id": None if thread == overview.agent_id else thread,
        "run_id": message.run_id or None,
        "step_id": message.step_id or None,
        "otid": message.otid or None,
        "sender_id": message.sender_id or None,
        "group_id": message.group_id or None,
        "is_err": message.is_err or None,
        "tool_calls": [_call(call) for call in calls] or None,
        "tool_call_id": returns[0].tool_call_id if returns else None,
        "tool_returns": [_return(returned) for returned in returns],
    }


def _part(part: ContentPart) -> dict[str, Any] | None:
    """Return a part of a content; images without their bytes; calls and returns have keys of their own."""
    kind = part.WhichOneof("part")
    if kind == "text":
        return {"type": "text", "text": part.text.text}
    if kind == "reasoning":
        return {"type": "reasoning", "is_native": part.reasoning.is_native, "reasoning": part.reasoning.reasoning}
    return {"type": kind} if kind in {"image", "redacted_reasoning", "omitted_reasoning"} else None


def _call(call: message_pb2.ToolCallContent) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.input}}


def _return(returned: message_pb2.ToolReturnContent) -> dict[str, Any]:
    return {
        "tool_call_id": returned.tool_call_id,
        "status": "error" if returned.is_error else "success",
        "func_response": returned.content,
        "stdout": list(returned.stdout) or None,
        "stderr": list(returned.stderr) or None,
    }
