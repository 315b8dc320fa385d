"""Steps as clients see them."""

from __future__ import annotations

from letta.agent.v1 import step_pb2
from letta.agent.v1.run_pb2 import CompletionTokenDetails, PromptTokenDetails
from letta.common.v1.usage_pb2 import TokenUsage
from letta_agent.domain.journal.records import StepSummary
from letta_agent.domain.journal.steps import shown_step


def step(**usage: int) -> step_pb2.Step:
    summary = StepSummary(
        id="step-1",
        step_index=0,
        model="openai/gpt-5",
        provider_type="openai",
        context_window=8_000,
        usage=TokenUsage(**usage),
        stop_reason=0,
        status=step_pb2.STEP_STATUS_SUCCESS,
        **dict.fromkeys(("started_ns", "step_ns", "llm_started_ns", "llm_ns", "tool_ns"), 1),
    )
    return shown_step(summary, "run-1")


def test_a_step_tells_the_kinds_of_its_tokens():
    told = step(prompt_tokens=9, completion_tokens=7, cached_input_tokens=5, cache_write_tokens=2, reasoning_tokens=3)

    assert told.prompt_tokens_details == PromptTokenDetails(cached_tokens=5, cache_write_tokens=2)
    assert told.completion_tokens_details == CompletionTokenDetails(reasoning_tokens=3)


def test_a_step_without_kinds_of_tokens_has_no_details_and_without_a_failure_no_error():
    told = step(prompt_tokens=9, completion_tokens=7)

    assert {field.name for field, _ in told.ListFields()}.isdisjoint(
        {"prompt_tokens_details", "completion_tokens_details", "error_data"}
    )
