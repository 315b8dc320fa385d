"""Outcomes of calls, as they are kept and as the model gets to see them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from letta_sandbox.calls import CallEnding, CallUsage, Isolation, Result, ToolFailure


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended, and whether that was known already or cannot be known any more."""

    result: Result
    unknown: bool = False
    repeated: bool = False
    tool_version: int = 0


def write_outcome(outcome: Outcome) -> bytes:
    """Return an outcome as it is kept."""
    values = asdict(outcome.result)
    values["status"] = outcome.result.status.value
    values["tool_version"] = outcome.tool_version
    # With escapes, since a tool's text may hold halves of characters, which UTF-8 refuses.
    return json.dumps(values).encode()


def read_outcome(kept: bytes) -> Outcome:
    """Return the outcome that was kept."""
    values = json.loads(kept)
    version = values.pop("tool_version", 0)
    values["status"] = CallEnding(values["status"])
    values["isolation"] = Isolation(values["isolation"])
    values["usage"] = CallUsage(**values["usage"])
    values["failure"] = ToolFailure(**values["failure"]) if values["failure"] else None
    return Outcome(Result(**values), tool_version=version)


def return_text(outcome: Outcome, name: str) -> str:
    """Return what the model reads: the result, a string as it is; or what went wrong."""
    result = outcome.result
    if result.status is CallEnding.SUCCESS:
        value = json.loads(result.result) if result.result else None
        return value if isinstance(value, str) else result.result or "null"
    return f"Error executing function {name}: {error_text(result)}"


def error_text(result: Result) -> str:
    """Return what went wrong in one line."""
    failure = result.failure
    if failure is None:
        return result.status.value
    return f"{failure.kind}: {failure.message}" if failure.kind else failure.message
