"""AppError <-> google.rpc.Status: the one place that knows both."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import grpc
from google.rpc import error_details_pb2, status_pb2

from letta_common.codes import Code
from letta_common.errors import (
    BY_REASON,
    AppError,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    OperationUnimplemented,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    RequestCancelled,
    ServiceUnavailable,
    Unauthenticated,
    ValidationFailed,
)

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "letta"
MOST_VIOLATIONS = 32
# Trailing metadata counts against a limit of the client, 8 KiB by gRPC's default, and vendors' errors can be long.
_MAX_TEXT = 2000
# The text of a status travels percent-encoded as well, where a byte that is not printable ASCII takes three.
_MAX_ENCODED = 2700
_MAX_VALUE = 512
_MAX_VIOLATION_BYTES = 2800  # what the text, twice, leaves of 8 KiB
_ELLIPSIS = "..."
# In the list itself, as REST shows the list alone. Its name is a path without parts: it says nothing of one field.
_MORE = error_details_pb2.BadRequest.FieldViolation(
    field=_ELLIPSIS, description="more fields are wrong than there is room to name; mend these and send it again"
)
_RETRY_SECONDS = 1.0
# Reasons whose code alone does not say that a second attempt is worth while.
_RETRY_REASONS = frozenset({"OVERLOADED", "RATE_LIMITED", "LLM_RATE_LIMIT", "CONVERSATION_BUSY"})
GRPC_CODES: dict[Code, grpc.StatusCode] = {code: grpc.StatusCode[code.name] for code in Code}
_log = logging.getLogger("letta.rpc")  # structlog would cost each command a quarter of a second
_BY_CODE: dict[grpc.StatusCode, type[AppError]] = {
    grpc.StatusCode.CANCELLED: RequestCancelled,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNIMPLEMENTED: OperationUnimplemented,
    grpc.StatusCode.UNAVAILABLE: ServiceUnavailable,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
}


def to_status(error: AppError) -> status_pb2.Status:
    """Describe an error for the caller.

    Metadata keys with a meaning: `field` names the offending field of an INVALID_ARGUMENT, `retry_after` the seconds to
    wait, and `<noun>_id` the object that was not found. A ValidationFailed carries `{field path: description}`.
    """
    message = _fitting(error.message)
    status = status_pb2.Status(code=error.code.value, message=message)
    metadata = {} if isinstance(error, ValidationFailed) else {k: _cut(v) for k, v in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    status.details.add().Pack(info)
    detail = _detail(error, message)
    if detail is not None:
        status.details.add().Pack(detail)
    return status


def _detail(error: AppError, message: str) -> error_details_pb2.BadRequest | object | None:
    metadata = error.metadata
    if error.code is Code.INVALID_ARGUMENT:
        fields = metadata if isinstance(error, ValidationFailed) else {metadata.get("field", ""): message}
        return _bad_request(fields)
    if error.code is Code.NOT_FOUND:
        noun = error.reason.removesuffix("_NOT_FOUND").lower()
        name = metadata.get(f"{noun}_id") or next(iter(metadata.values()), "")
        return error_details_pb2.ResourceInfo(resource_type=noun, resource_name=_cut(name), description=_cut(message))
    if error.code is Code.FAILED_PRECONDITION:
        failure = error_details_pb2.PreconditionFailure()
        subject = _cut(next(iter(metadata.values()), ""))
        failure.violations.add(type=error.reason, subject=subject, description=_cut(message))
        return failure
    if error.code is Code.UNAVAILABLE or error.reason in _RETRY_REASONS:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(float(metadata.get("retry_after", _RETRY_SECONDS)) * 1e9))
        return retry
    return None


def _bad_request(fields: Mapping[str, str]) -> error_details_pb2.BadRequest | None:
    """Name the offending fields, as many as there is room for, and say when there are more."""
    bad, left = error_details_pb2.BadRequest(), _MAX_VIOLATION_BYTES
    for path, text in fields.items():
        found = error_details_pb2.BadRequest.FieldViolation(field=_cut(path), description=_cut(text))
        left -= found.ByteSize()
        if left < 0 or len(bad.field_violations) == MOST_VIOLATIONS:
            bad.field_violations.append(_MORE)
            break
        if path:
            bad.field_violations.append(found)
    return bad if bad.field_violations else None


def _cut(text: str) -> str:
    """Return the beginning of a text, without half a character at the end."""
    return text.encode()[:_MAX_VALUE].decode(errors="ignore")


def _fitting(text: str) -> str:
    """Return as much of a message as its place in the status may hold; three dots say that there was more."""
    size = 0
    for end, character in enumerate(text):
        size += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
        if end == _MAX_TEXT or size > _MAX_ENCODED:
            return text[:end] + _ELLIPSIS
    return text


def from_rpc_error(error: grpc.aio.AioRpcError) -> AppError:
    """Rebuild the error that the called service raised; a status without details becomes the class of its code."""
    return from_status_parts(error.code(), error.details() or "", error.trailing_metadata() or ())


def from_status_parts(code: grpc.StatusCode, text: str, trailing: Iterable[tuple[str, str | bytes]]) -> AppError:
    """Rebuild an error from a code, its text and the trailing metadata.

    A status that no service of ours explains is the transport's, whose words name addresses: they go to the log alone.
    """
    for key, value in trailing:
        if key == DETAILS_KEY and isinstance(value, bytes):
            return _from_status(status_pb2.Status.FromString(value)) or _BY_CODE.get(code, InternalError)(text)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:
        return PayloadTooLarge(text)
    _log.info("a call failed without an explanation", extra={"code": code.name, "cause": text[:_MAX_VALUE]})
    return _BY_CODE.get(code, InternalError)(_UNEXPLAINED.get(code, f"the called service answered {code.name}"))


_UNEXPLAINED = {
    grpc.StatusCode.UNAVAILABLE: "a service of the deployment does not answer; try again",
    grpc.StatusCode.DEADLINE_EXCEEDED: "a service of the deployment did not answer in time",
    grpc.StatusCode.CANCELLED: "the called service cancelled the call",
}


def _from_status(status: status_pb2.Status) -> AppError | None:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if not detail.Unpack(info):
            detail.Unpack(bad)
    kind = BY_REASON.get(info.reason) if info.domain == DOMAIN else None
    if kind is None:
        return None
    if kind is ValidationFailed:
        return kind(status.message, **{violation.field: violation.description for violation in bad.field_violations})
    return kind(status.message, **dict(info.metadata))
