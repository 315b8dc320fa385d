"""Failures of services in a run: which of them end it, and what the model is told of the others."""

from __future__ import annotations

from letta_common.codes import Code
from letta_common.errors import AppError, DatabaseUnavailable, Fenced, ServiceUnavailable

NEUTRAL = (
    "Internal error: the call could not be carried out, for a reason that its arguments have no part in. "
    "It may or may not have taken effect; check before you call it again."
)
_OF_THE_CALL = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.ALREADY_EXISTS,
        Code.PERMISSION_DENIED,
        Code.RESOURCE_EXHAUSTED,
        Code.FAILED_PRECONDITION,
        Code.ABORTED,
        Code.OUT_OF_RANGE,
    }
)
"""Codes of failures that the call itself brought about; all others tell of the inside of the deployment."""


def ends_run(error: AppError) -> bool:
    """Say whether a call of a tool that fails so ends the run: nothing of its step could be stored."""
    return isinstance(error, (Fenced, ServiceUnavailable, DatabaseUnavailable))


def for_model(error: AppError) -> str:
    """Return what the model reads of a failed call: what it can mend, and of anything else only that it happened."""
    # The model's words go to strangers, so it learns nothing of the inside.
    return error.message if error.code in _OF_THE_CALL else NEUTRAL
