"""What vendors answer when they refuse, as the errors of the contract."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import httpx2

from letta_common.egress import TooMuchData
from letta_common.errors import (
    AppError,
    CapabilityMissing,
    ContextWindowExceeded,
    LLMAuthentication,
    LLMBadRequest,
    LLMInsufficientCredits,
    LLMInvalidResponse,
    LLMRateLimit,
    LLMTimeout,
    LLMUnavailable,
    ModelNotFound,
)
from letta_llm_gateway.providers.fitting.reasons import reason_of
from letta_llm_gateway.providers.refusals import LACKING, TOO_LONG, refused_tool, sizes_of

_NO_CREDIT = re.compile(
    r"insufficient[_ ](quota|credit|balance|funds)|credit balance|billing|payment required", re.IGNORECASE
)
# Beginnings of keys as vendors give them out.
_SECRET = re.compile(r"\b(sk|pk|rk|gsk|xai|key|Bearer)[-_ ][\w\-*.]{6,}", re.IGNORECASE)
# Google refuses a wrong key with 400.
_KEYLESS_400 = re.compile(r"api[_ ]?key (is )?(not valid|invalid)|invalid api[_ ]?key", re.IGNORECASE)
_MAX_TEXT = 500


def redacted(text: str) -> str:
    """Return a vendor's text without anything that looks like a key, cut to a readable length."""
    return _SECRET.sub("[redacted]", text)[:_MAX_TEXT]


def retry_after(headers: Mapping[str, str]) -> str | None:
    """Return the seconds after which a vendor wants to be asked again, as text, or None."""
    # OpenAI tells short waits in this header, since Retry-After has whole seconds.
    if (millis := headers.get("retry-after-ms", "")).replace(".", "", 1).isdigit():
        return str(float(millis) / 1000)
    value = headers.get("retry-after", "").strip()
    if value.replace(".", "", 1).isdigit():
        return value
    try:
        return str(max(0.0, parsedate_to_datetime(value).timestamp() - time()))
    except (TypeError, ValueError):
        return None


def refusal(  # noqa: PLR0911 one line for each case
    vendor: str,
    status: int,
    text: str,
    headers: Mapping[str, str] | None = None,
    *,
    model: str = "",
    tools: Sequence[str] = (),
) -> AppError:
    """Return the error for a vendor's HTTP status and text; `tools` are the names that were sent, in order."""
    said = redacted(text) or "no reason given"
    where: dict[str, str] = {"provider": vendor, "status": str(status)}
    if wait := retry_after(headers or {}):
        where["retry_after"] = wait
    if 300 <= status < 400:
        return LLMBadRequest(f"{vendor} redirects elsewhere, where its key does not go; correct its base_url", **where)
    if status in {401, 403} or (status == 400 and _KEYLESS_400.search(text)):
        return LLMAuthentication(f"{vendor} refuses the key; check it and its permissions: {said}", **where)
    if status in {402, 429, 400} and (status == 402 or _NO_CREDIT.search(text)):
        return LLMInsufficientCredits(f"the account at {vendor} has no credit: {said}", **where)
    if status == 404:
        return ModelNotFound(f"{vendor} does not know model {model!r}: {said}", handle=model, **where)
    if status == 429:
        return LLMRateLimit(f"{vendor} limits the rate: {said}", **where)
    if status == 408:
        return LLMTimeout(f"{vendor} took too long: {said}", **where)
    if status == 413 or (status < 500 and TOO_LONG.search(text)):
        where |= sizes_of(text)
        return ContextWindowExceeded(f"the prompt does not fit the window of {model!r}: {said}", **where)
    if status < 500 and LACKING.search(text):
        return CapabilityMissing(f"{model!r} cannot do this; choose a model that can, or leave it out: {said}", **where)
    if status < 500 and (tool := refused_tool(text, tools)):
        where["tool"] = tool
        return LLMBadRequest(f"{vendor} refuses tool {tool!r}; change its name or schema: {said}", **where)
    if status < 500:
        return LLMBadRequest(f"{vendor} refuses the request: {said}", **where)
    return LLMUnavailable(f"{vendor} is not available (status {status}): {said}", **where)


_STREAM_STATUS = {
    # Anthropic's own status for being overloaded.
    "overloaded_error": 529,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "authentication_error": 401,
    "permission_error": 403,
    "billing_error": 402,
    "insufficient_quota": 402,
    "not_found_error": 404,
    "request_too_large": 413,
    "context_length_exceeded": 413,
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "timeout_error": 408,
}


def stream_refusal(vendor: str, error: Any, *, model: str = "") -> AppError:
    """Return the error for an error object that a vendor put into a stream."""
    if not isinstance(error, dict):
        return refusal(vendor, 500, str(error), model=model)
    status = 500
    for key in ("code", "type", "status"):
        value = error.get(key)
        if isinstance(value, int) and 400 <= value < 600:
            status = value
            break
        if value in _STREAM_STATUS:
            status = _STREAM_STATUS[value]
            break
    return refusal(vendor, status, str(error.get("message") or error), model=model)


def not_connected(vendor: str) -> LLMTimeout:
    """Return the error for a connection that was not made in time; nothing was asked yet, so it may be tried again."""
    return LLMTimeout(f"{vendor} cannot be connected to in time", provider=vendor, phase="connect")


_MISREAD = (ArithmeticError, AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)
"""What reading an answer raises that has another shape than the vendor's."""


@contextmanager
def transport_errors(vendor: str) -> Iterator[None]:
    """Turn what the HTTP client and the reading of an answer raise into the errors of the contract."""
    try:
        yield
    except TooMuchData as error:
        raise LLMInvalidResponse(f"{vendor} answered more than any model does", provider=vendor) from error
    except _MISREAD as error:
        raise LLMInvalidResponse(f"{vendor} answered in a form that is not its own", provider=vendor) from error
    # In both cases nothing was asked yet.
    except (httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
        raise not_connected(vendor) from error
    except httpx2.TimeoutException as error:
        raise LLMTimeout(f"{vendor} stopped answering", provider=vendor) from error
    except (httpx2.TransportError, httpx2.StreamError) as error:
        raise LLMUnavailable(f"the connection to {vendor} broke: {type(error).__name__}", provider=vendor) from error


@contextmanager
def sdk_errors(sdk: Any, family: type[Exception], vendor: str, model: str, tools: Sequence[Any] = ()) -> Iterator[None]:
    """Turn what an SDK raises into the errors of the contract, for SDKs made as OpenAI's and Anthropic's are.

    `sdk` is its module, `family` what all of its errors are, `tools` those that were sent.
    """
    try:
        with transport_errors(vendor):
            yield
    except sdk.APIStatusError as error:
        answer, names = error.response, [tool.name for tool in tools]
        said = reason_of(answer.content)
        raise refusal(vendor, error.status_code, said, answer.headers, model=model, tools=names) from error
    # SDKs are given no time-out but the one to connect; silence is timed by the gateway.
    except sdk.APITimeoutError as error:
        raise not_connected(vendor) from error
    except sdk.APIConnectionError as error:
        raise LLMUnavailable(f"{vendor} cannot be reached", provider=vendor) from error
    except family as error:
        raise LLMInvalidResponse(f"{vendor} answered something unreadable", provider=vendor) from error
