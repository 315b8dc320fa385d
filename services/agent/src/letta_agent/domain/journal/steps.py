"""Steps as clients see them."""

from __future__ import annotations

from letta.agent.v1.run_pb2 import RunUsage
from letta.common.v1.usage_pb2 import TokenUsage
from letta_agent.domain.journal.records import Step, StepMetrics, StepSummary
from letta_common.values.times import duration_of, moment_of


def shown_step(summary: StepSummary, run_id: str) -> Step:
    """Return what a summary tells of a step of a run."""
    used = summary.usage
    provider, _, name = summary.model.partition("/")
    step = Step(
        id=summary.id,
        run_id=run_id,
        provider_name=provider,
        model=name or summary.model,
        model_handle=summary.model,
        context_window_limit=summary.context_window,
        completion_tokens=used.completion_tokens,
        prompt_tokens=used.prompt_tokens,
        total_tokens=used.prompt_tokens + used.completion_tokens,
        cached_input_tokens=used.cached_input_tokens,
        cache_write_tokens=used.cache_write_tokens,
        reasoning_tokens=used.reasoning_tokens,
        stop_reason=summary.stop_reason,  # type: ignore[arg-type]
        status=summary.status,  # type: ignore[arg-type]
        step_index=summary.step_index,
        duration=duration_of(summary.step_ns),
        llm_request_duration=duration_of(summary.llm_ns),
        tool_execution_duration=duration_of(summary.tool_ns),
        tools_used=summary.tools_used,
        started_at=moment_of(summary.started_ns),
        warnings=summary.warnings,
    )
    tell_kinds(step, summary.usage)
    if summary.error_type:
        step.error_type = summary.error_type
        step.error_data.message, step.error_data.run_id = summary.error_message, run_id
    return step


def tell_kinds(told: RunUsage | Step, used: TokenUsage) -> None:
    """Tell which tokens are of a kind of their own, where any are."""
    if used.cached_input_tokens or used.cache_write_tokens:
        told.prompt_tokens_details.cached_tokens = used.cached_input_tokens
        told.prompt_tokens_details.cache_write_tokens = used.cache_write_tokens
    if used.reasoning_tokens:
        told.completion_tokens_details.reasoning_tokens = used.reasoning_tokens


def metrics_of(step: Step, llm_started_ns: int) -> StepMetrics:
    """Return how long the parts of a step took."""
    return StepMetrics(
        id=step.id,
        organization_id=step.organization_id,
        run_id=step.run_id,
        agent_id=step.agent_id,
        started_at=step.started_at,
        llm_request_started_at=moment_of(llm_started_ns),
        llm_request_duration=step.llm_request_duration,
        tool_execution_duration=step.tool_execution_duration,
        duration=step.duration,
    )
