"""Looks, in the background, for what of memory could be better kept. Nothing is changed: it proposes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from letta_common.errors import AppError
from letta_common.process.periodic import Next

_log = structlog.get_logger("letta.memory.review")


class ReviewKeeper:
    """Takes turns of each look; one that fails holds up no other."""

    def __init__(self, looks: Sequence[Callable[[], Awaitable[bool]]]) -> None:
        self._looks = looks

    async def turn(self) -> Next:
        """Take a turn of each look; when much was left, there may be more."""
        more = False
        for look in self._looks:
            try:
                more = await look() or more
            except AppError as error:
                _log.warning("memory is not reviewed yet", reason=error.reason, message=error.message)
            except Exception:
                _log.exception("reviewing memory failed")
        return Next.AT_ONCE if more else Next.AFTER_A_PAUSE
