"""What came of a tool call, in the words of the service that executes tools, and what the model reads of it."""

from __future__ import annotations

import json

from letta.tools.v1 import tool_execution_service_pb2 as pb

Outcome = pb.ExecuteResponse


def returned(text: str) -> Outcome:
    """Return the outcome of a call that returned a text."""
    return Outcome(status=pb.EXECUTION_STATUS_SUCCESS, result=json.dumps(text, ensure_ascii=False))


def failed(text: str) -> Outcome:
    """Return the outcome of a call that failed."""
    return Outcome(status=pb.EXECUTION_STATUS_TOOL_ERROR, error_message=text)


def has_failed(outcome: Outcome) -> bool:
    """Say whether a call came to something else than its result."""
    return outcome.status != pb.EXECUTION_STATUS_SUCCESS


def told(outcome: Outcome) -> str:
    """Return an outcome as the model reads it: a string without its quotes, anything else as JSON."""
    if has_failed(outcome):
        kind = f"{outcome.error_type}: " if outcome.error_type else ""
        return f"{kind}{outcome.error_message}"
    try:
        value = json.loads(outcome.result)
    except ValueError:
        return outcome.result
    if isinstance(value, str):
        return value
    return "None" if value is None else outcome.result
