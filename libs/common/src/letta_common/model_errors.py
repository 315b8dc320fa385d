"""The errors of models and their vendors, a part of the family in `letta_common.errors`."""

from __future__ import annotations

from letta_common.app_error import AppError
from letta_common.codes import Code

__all__ = [
    "CapabilityMissing",
    "ContextWindowExceeded",
    "LLMAuthentication",
    "LLMBadRequest",
    "LLMInsufficientCredits",
    "LLMInvalidResponse",
    "LLMRateLimit",
    "LLMTimeout",
    "LLMUnavailable",
]


class LLMTimeout(AppError):
    """The model did not answer in time."""

    code = Code.DEADLINE_EXCEEDED
    reason = "LLM_TIMEOUT"


class LLMRateLimit(AppError):
    """The vendor refuses for now, retries included."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "LLM_RATE_LIMIT"


class LLMAuthentication(AppError):
    """The vendor refuses the key."""

    code = Code.FAILED_PRECONDITION
    reason = "LLM_AUTHENTICATION"


class LLMBadRequest(AppError):
    """The vendor refuses the request."""

    code = Code.INVALID_ARGUMENT
    reason = "LLM_BAD_REQUEST"


class LLMInsufficientCredits(AppError):
    """The vendor account has no credit."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "LLM_INSUFFICIENT_CREDITS"


class LLMUnavailable(AppError):
    """The vendor is down or overloaded, or cannot be reached."""

    code = Code.UNAVAILABLE
    reason = "LLM_UNAVAILABLE"


class LLMInvalidResponse(AppError):
    """The vendor's answer cannot be read, or is none."""

    code = Code.UNAVAILABLE
    reason = "LLM_INVALID_RESPONSE"


class ContextWindowExceeded(AppError):
    """The prompt does not fit the model's window. Compact and try again."""

    code = Code.FAILED_PRECONDITION
    reason = "CONTEXT_WINDOW_EXCEEDED"


class CapabilityMissing(AppError):
    """The model cannot do what was asked; the message names what to change."""

    code = Code.FAILED_PRECONDITION
    reason = "CAPABILITY_MISSING"
