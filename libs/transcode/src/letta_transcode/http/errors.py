"""Turns failures, of a request or of a call, into HTTP statuses and bodies."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from letta.jsonmap.v1 import annotations_pb2 as jsonmap
from letta_transcode.mapping.plans import enum_prefix

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor

    from letta_transcode.mapping.values import Loc, Problems

_HTTP = {
    # nginx's own status for a client that left; HTTP has none.
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
# Without a reason their words come from the code that failed, and are nobody's outside.
_UNEXPLAINED = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS})
# As protovalidate writes paths: `a.b[0].c["key"]`.
_PATH = re.compile(r'([^.\[\]"]+)|\[(\d+)\]|\["([^"]*)"\]')


class HttpError(Exception):
    """A failed request as its HTTP answer."""

    def __init__(self, status: int, body: Any, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body
        self.headers = tuple(headers)


def detail(status: int, text: str, headers: Iterable[tuple[str, str]] = ()) -> HttpError:
    """Return an error whose body is `{"detail": text}`."""
    return HttpError(status, {"detail": text}, headers)


def unprocessable(problems: Problems) -> HttpError:
    """Return the 422 that lists what is wrong with a request."""
    return HttpError(422, {"trace_id": "", "detail": repr(problems)})


def unexpected() -> HttpError:
    """Return the 500 that says nothing of the cause."""
    return detail(500, "An unknown error occurred")


def unavailable(text: str) -> HttpError:
    """Return the 503 of a server that has not been seen yet."""
    return HttpError(503, {"detail": text, "error_code": "SERVICE_UNAVAILABLE"}, [("retry-after", "1")])


def in_openai_words(error: HttpError) -> HttpError:
    """Return an error with a body as OpenAI's API answers: `{"error": {"message", "type", "param", "code"}}`."""
    told = error.body.get("error") or error.body.get("detail")
    about = told if isinstance(told, dict) else {"message": told}
    kind = (
        "rate_limit_error" if error.status == 429 else "invalid_request_error" if error.status < 500 else "server_error"
    )
    code = error.body.get("error_code") or about.get("code")
    body = {"message": about.get("message"), "type": about.get("type") or kind, "param": None, "code": code}
    return HttpError(error.status, {"error": body}, error.headers)


def violation_path(field: str) -> Loc:
    """Split the path of a field violation: `a.b[0]["c"]` is a, b, 0, c."""
    return tuple(int(index) if index else name or key for name, index, key in _PATH.findall(field))


class ErrorMap:
    """Maps gRPC errors by `ErrorInfo.reason` where an enum of reasons says how, else by their code."""

    def __init__(self, reasons: EnumDescriptor | None = None) -> None:
        self._reasons: dict[str, jsonmap.ErrorMapping] = {}
        if reasons is not None:
            prefix = enum_prefix(reasons)
            for value in reasons.values:
                options = value.GetOptions()
                if options.HasExtension(jsonmap.error):
                    self._reasons[value.name.removeprefix(prefix)] = options.Extensions[jsonmap.error]

    def http(self, error: grpc.RpcError, locate: Callable[[Loc], Loc] | None = None) -> HttpError:
        """Return the HTTP answer to a failed call; `locate` says where in the request a proto field stands."""
        code, message = _code(error), _message(error)
        details = Details(error)
        headers = [("retry-after", str(details.retry_after))] if details.retry_after else []
        mapping = self._reasons.get(details.reason, jsonmap.ErrorMapping())
        status = mapping.http_status or _HTTP.get(code, 500)
        if details.violations and status in (400, 422):
            problems = [
                {"type": "value_error", "loc": locate(path) if locate else path, "msg": text, "input": None}
                for path, text in details.violations
            ]
            return HttpError(422, {"trace_id": "", "detail": repr(problems)}, headers)
        if code in _UNEXPLAINED and not details.reason:
            return unexpected()
        # The transport's own words name addresses inside.
        if code is grpc.StatusCode.UNAVAILABLE and not details.reason:
            return unavailable("The service is not available")
        return HttpError(status, _body(mapping, message, details), headers)

    def event(self, error: grpc.RpcError) -> dict[str, Any]:
        """Return the message that tells, in the middle of a stream, what the call failed with."""
        code, details, message = _code(error), Details(error), _message(error)
        if code in _UNEXPLAINED and not details.reason:
            message = "An unknown error occurred"
        mapping = self._reasons.get(details.reason, jsonmap.ErrorMapping())
        kind = mapping.type or (details.reason or code.name).lower()
        return {
            "message_type": "error_message",
            "run_id": details.metadata.get("run_id"),
            "error_type": "internal_error" if kind in {"internal", "unknown"} else kind,
            "message": message,
            "detail": details.metadata.get("detail") or message,
            "seq_id": None,
        }


class Details:
    """What `google.rpc.Status` says beside code and message."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.reason = ""
        self.metadata: Mapping[str, str] = {}
        self.violations: list[tuple[Loc, str]] = []
        self.retry_after = 0
        for packed in status_of(error).details:
            self._read(packed)

    def _read(self, packed: Any) -> None:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if packed.Is(info.DESCRIPTOR) and packed.Unpack(info):
            self.reason, self.metadata = info.reason, dict(sorted(info.metadata.items()))  # a map comes in any order
        elif packed.Is(bad.DESCRIPTOR) and packed.Unpack(bad):
            self.violations += [(violation_path(each.field), each.description) for each in bad.field_violations]
        elif packed.Is(retry.DESCRIPTOR) and packed.Unpack(retry):
            delay = retry.retry_delay
            self.retry_after = max(1, math.ceil(delay.seconds + delay.nanos / 1e9))


def status_of(error: grpc.RpcError) -> status_pb2.Status:
    """Return the status of a failed call with its details; without them when they are absent or cannot be read."""
    trailing: Any = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    for key, value in trailing or ():
        if key == "grpc-status-details-bin":
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status(code=_code(error).value[0], message=_message(error))


def http_status(code: grpc.StatusCode) -> int:
    """Return the HTTP status of a canonical code."""
    return _HTTP.get(code, 500)


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    code = error.code() if hasattr(error, "code") else None
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def _message(error: grpc.RpcError) -> str:
    return (error.details() if hasattr(error, "details") else None) or ""


def _body(mapping: jsonmap.ErrorMapping, message: str, details: Details) -> dict[str, Any]:
    if mapping.body == jsonmap.ERROR_BODY_ERROR_OBJECT:
        kind = mapping.type or details.reason.lower()
        return {"error": {"type": kind, "message": message, "detail": details.metadata.get("detail")}}
    if mapping.body == jsonmap.ERROR_BODY_DETAIL_OBJECT:
        return {"detail": {"code": details.reason, "message": message, **details.metadata}}
    if mapping.body == jsonmap.ERROR_BODY_DETAIL_WITH_CODE:
        return {"detail": message, "error_code": details.reason, **details.metadata}
    return {"detail": message}
