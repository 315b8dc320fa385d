"""Patience with services and databases that are away for a moment, for calls that may be made again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from letta_common.errors import (
    AppError,
    DatabaseUnavailable,
    DeadlineExceeded,
    Overloaded,
    RequestCancelled,
    ServiceUnavailable,
)

T = TypeVar("T")
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.5, 1.5, 1.5, 1.5, 1.5)
"""Seconds before each further attempt: about as long as a database or a service takes to start again."""
# Not slow ones: whoever uses AWAY alone must not begin anew what may still be running.
AWAY: tuple[type[AppError], ...] = (ServiceUnavailable, DatabaseUnavailable, Overloaded, RequestCancelled)
AWAY_OR_SLOW = (*AWAY, DeadlineExceeded)
# Spreads the attempts of many runs, so that they do not all fall on a service that has just come back.
_JITTER = random.Random()  # noqa: S311
_log = structlog.get_logger("letta.agent.clients")


async def patiently(
    call: Callable[[], Awaitable[T]], *, over: tuple[type[AppError], ...] = AWAY_OR_SLOW, what: str = ""
) -> T:
    """Make a call whose repeats change nothing, again while what it needs is away. Raises its errors."""
    for pause in PAUSES:
        try:
            return await call()
        except over as error:
            _log.warning("call is made again", what=what, reason=error.reason, message=error.message)
        await asyncio.sleep(pause * _JITTER.uniform(0.8, 1.2))
    return await call()
