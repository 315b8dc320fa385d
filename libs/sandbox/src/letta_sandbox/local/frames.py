"""What goes into a call and what comes out, as text: built and read here, strictly, with nothing evaluated."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from letta_sandbox.calls import CallEnding, Language, SandboxCall, ToolFailure

TOKEN_LENGTH = 32
# Room beside the result: kind, message and traceback of a failure, each cut to 8 Ki characters inside.
OVERHEAD = 64 << 10

_FROM_INSIDE = {
    status.value: status
    for status in (
        CallEnding.SUCCESS,
        CallEnding.TOOL_ERROR,
        CallEnding.MEMORY,
        CallEnding.OUTPUT_LIMIT,
        CallEnding.BAD_RESULT,
        CallEnding.DENIED,
    )
}
# The smallest that may need more than 64 bits has 19 digits; without one the parser's own fast way will do.
_LONG_INTEGER = re.compile(rb"\d{19}")
# What readers in other languages hold: from the least signed to the largest unsigned number of 64 bits.
_INT_LEAST, _INT_MOST = -(1 << 63), (1 << 64) - 1
_NAME = re.compile(r"[^=\0]{1,256}")
_REQUEST_LIMIT = 32 << 20


class BadRequest(ValueError):
    """The call cannot be begun; the message says why."""


@dataclass(frozen=True, slots=True)
class FrameOutcome:
    """What a frame says."""

    status: CallEnding
    result: str = ""
    failure: ToolFailure | None = None
    changed_blocks: Mapping[str, str] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0


def build_request(call: SandboxCall, token: str) -> bytes:
    """Return the bytes that go through the request pipe. Raises BadRequest."""
    if call.function and not call.function.isidentifier():
        raise BadRequest(f"{call.function[:100]!r} is not the name of a function")
    _require_object(call.arguments, "arguments")
    if call.agent_state:
        _require_object(call.agent_state, "agent_state")
    for name, value in call.environment_variables.items():
        if not _NAME.fullmatch(name) or "\0" in value:
            raise BadRequest(f"environment variable {name[:100]!r} cannot be set")
    if call.attachment is not None and call.language is not Language.PYTHON:
        raise BadRequest("only a Python function takes an attachment")
    request = {
        "token": token,
        "source": call.source_code,
        "function": call.function,
        "arguments": call.arguments,
        "environment": dict(call.environment_variables),
        "agent_state": call.agent_state,
        "result_bytes": call.limits.result_bytes,
        "signature": asdict(call.signature),
        "borrowed": call.borrowed,
        "attached": call.attachment is not None,
    }
    data = json.dumps(request).encode()
    if len(data) > _REQUEST_LIMIT:
        raise BadRequest(f"the call has {len(data)} bytes, the limit is {_REQUEST_LIMIT}")
    # JSON without indentation has no line end, so the first one is where the attachment begins.
    return data if call.attachment is None else b"\n".join((data, call.attachment))


def _require_object(text: str, what: str) -> None:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{what} are not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRequest(f"{what} must be a JSON object")


def read_frame(data: bytes, token: str) -> FrameOutcome | None:
    """Read what a call wrote; None when there is no whole frame with the call's token."""
    # Only the harness knows the token, so what a tool writes to the pipe by itself is no frame.
    if data[:TOKEN_LENGTH] != token.encode():
        return None
    body = data[TOKEN_LENGTH:]
    try:
        frame = _parse(body)
    except (ValueError, RecursionError) as error:
        return _bad(f"the result cannot be read: {error}")
    status = _FROM_INSIDE.get(str(frame.get("status"))) if isinstance(frame, dict) else None
    if status is None:
        return _bad("the result has no status")
    if status is CallEnding.SUCCESS:
        return _with_usage(_success(frame), frame.get("usage"))
    failure = ToolFailure(*(_text(frame.get(name)) for name in ("kind", "message", "traceback")))
    return _with_usage(FrameOutcome(status, failure=failure), frame.get("usage"))


def _with_usage(outcome: FrameOutcome, usage: Any) -> FrameOutcome:
    try:
        seconds, memory = usage
        return replace(outcome, cpu_seconds=max(0.0, float(seconds)), peak_memory_bytes=max(0, int(memory)))
    except (TypeError, ValueError, OverflowError):
        return outcome


def _success(frame: dict[str, Any]) -> FrameOutcome:
    changes = frame.get("changes")
    try:
        result = _dump(frame["value"])
        return FrameOutcome(
            CallEnding.SUCCESS, result=result, changed_blocks=_checked_changes(changes) if changes else {}
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        return _bad(f"the result is not JSON that others can read: {error}")


def _checked_changes(changes: Any) -> dict[str, str]:
    blocks = changes["blocks"]
    if set(changes) != {"blocks"} or not isinstance(blocks, dict):
        raise TypeError("changes of the agent's state must be of its blocks")
    if not all(isinstance(text, str) for item in blocks.items() for text in item):
        raise TypeError("changes of the agent's state must be texts of blocks by label")
    for text in (*blocks, *blocks.values()):
        text.encode()  # fails for half of a surrogate pair
    return blocks


def _parse(body: bytes) -> Any:
    parse_int = _small_int if _LONG_INTEGER.search(body) else None
    # Halves of surrogate pairs come through here: a result is refused for them by `_dump`, a message has them replaced.
    return json.loads(body.decode(errors="surrogatepass"), parse_constant=_refuse_constant, parse_int=parse_int)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _small_int(digits: str) -> int:
    value = int(digits) if len(digits) <= 20 else _INT_MOST + 1
    if not _INT_LEAST <= value <= _INT_MOST:
        raise ValueError("an integer needs more than 64 bits; return it as text")
    return value


def _dump(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text.encode()
    return text


def _text(value: Any) -> str:
    return value.encode(errors="replace").decode()[:OVERHEAD] if isinstance(value, str) else ""


def _bad(message: str) -> FrameOutcome:
    return FrameOutcome(CallEnding.BAD_RESULT, failure=ToolFailure("BadResult", message))
