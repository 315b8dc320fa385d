"""Time limits of calls."""

from __future__ import annotations

import time

from letta_common.actor import current_request
from letta_sandbox.calls import Limits

# For the answer to be written and to travel back before the caller gives up.
_ANSWER_SECONDS = 0.3
# The smaller of two limits holds, so this one cuts nothing.
_ANY = 1 << 62


def within_deadline(limits: Limits) -> Limits:
    """Cut the time of a call to what its caller waits, so that the answer is a status and not a missed deadline."""
    deadline = current_request().deadline
    if deadline is None:
        return limits
    # A caller whose time is almost up gets a status all the same.
    left = max(deadline - time.monotonic() - _ANSWER_SECONDS, 0.05)
    return limits.cut_to(Limits(left, _ANY, _ANY, _ANY, _ANY, _ANY, _ANY))
