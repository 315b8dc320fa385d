"""What a call says over the wire, kept for its trace: a tape that providers find without being handed it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Tape:
    """What went to the vendor last."""

    sent: bytes = b""


_tape: ContextVar[Tape | None] = ContextVar("letta_llm_tape", default=None)


def current_tape() -> Tape | None:
    """Return the tape of the call that is made, or None when nothing is kept."""
    return _tape.get()


def begin_tape() -> Tape:
    """Keep what this task and those that it starts send from now on."""
    tape = Tape()
    _tape.set(tape)
    return tape
