"""Runs as the contract says them."""

from __future__ import annotations

import json
from typing import Any

from letta.agent.v1 import run_pb2
from letta_agent.domain.journal.records import RunRecord, RunRequest
from letta_agent.domain.journal.steps import tell_kinds
from letta_common.actor import Actor
from letta_common.values.times import stamp_of


def pack_run(record: RunRecord) -> run_pb2.Run:
    """Return a run as clients see it."""
    request = RunRequest.FromString(record.request)
    metadata: dict[str, Any] = {"run_type": record.run_type}
    if record.error:
        metadata["error"] = {"message_type": "error_message", **json.loads(record.error)}
        # For services alone, which make the same error of it again.
        metadata["error"].pop("details", None)
    run = run_pb2.Run(
        id=record.id,
        status=record.status,  # type: ignore[arg-type]
        agent_id=record.agent_id,
        background=record.background,
        metadata=json.dumps(metadata),
        request_config=_config(request),
        stop_reason=record.stop_reason,  # type: ignore[arg-type]
    )
    run.created_at.FromDatetime(record.created_at)
    if record.conversation_id != record.agent_id:
        run.conversation_id = record.conversation_id
    if request.callback_url:
        run.callback_url = request.callback_url
    if record.ttft_ns:
        run.ttft.FromNanoseconds(record.ttft_ns)
    if record.completed_at is not None:
        run.completed_at.FromDatetime(record.completed_at)
        run.total_duration.FromTimedelta(record.completed_at - record.created_at)
    return run


def _config(request: RunRequest) -> run_pb2.RequestConfig:
    return run_pb2.RequestConfig(
        use_assistant_message=not request.HasField("use_assistant_message") or request.use_assistant_message,
        assistant_message_tool_name=request.assistant_message_tool_name or "send_message",
        assistant_message_tool_kwarg=request.assistant_message_tool_kwarg or "message",
        include_return_message_types=request.include_return_message_types,
    )


def pack_run_usage(record: RunRecord) -> run_pb2.RunUsage:
    """Return the tokens of a run."""
    used = record.usage
    usage = run_pb2.RunUsage(
        completion_tokens=used.completion_tokens,
        prompt_tokens=used.prompt_tokens,
        total_tokens=used.prompt_tokens + used.completion_tokens,
    )
    tell_kinds(usage, used)
    return usage


def pack_run_metrics(actor: Actor, record: RunRecord, tools_used: list[str]) -> run_pb2.RunMetrics:
    """Return how a run went."""
    metrics = run_pb2.RunMetrics(
        id=record.id,
        organization_id=actor.organization_id,
        agent_id=record.agent_id,
        started_at=stamp_of(record.created_at),
        num_steps=record.step_count,
        tools_used=tools_used,
    )
    if record.completed_at is not None:
        metrics.duration.FromTimedelta(record.completed_at - record.created_at)
    return metrics
