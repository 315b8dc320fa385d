"""Histories for wires on which users and models take turns: what one of them says in several messages is one turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from letta.common.v1.message_pb2 import Message
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers.wires.bodies import together

_SIZE = 150


class Turn(Protocol):
    """What one side says before the other does, as one wire has it."""

    def takes(self, other: Self) -> bool:
        """Say whether the other, which follows, belongs to this turn."""
        ...

    def with_all(self, others: Sequence[Self]) -> Self:
        """Return this turn and those that belong to it as one."""
        ...

    def encoded(self) -> bytes:
        """Write the turn as JSON."""
        ...


T = TypeVar("T", bound=Turn)


@dataclass(frozen=True, slots=True)
class Turns(Generic[T]):
    """Turns that follow each other. The outer ones may still grow, so only those between them are written."""

    first: T | None = None
    between: bytes = b""
    last: T | None = None
    """None when there is one turn or none."""

    def encoded(self) -> bytes:
        """Write all turns, with commas between them."""
        first = self.first.encoded() if self.first is not None else b""
        return together(first, self.between, self.last.encoded() if self.last is not None else b"")


def joined(parts: Iterable[Turns[T]]) -> Turns[T]:
    """Return turns of histories that follow each other; where two of them meet, one turn may go on in the next."""
    first: T | None = None
    between: list[bytes] = []
    running: list[T] = []

    def close() -> None:
        nonlocal first
        turn = running[0].with_all(running[1:]) if len(running) > 1 else running[0]
        running.clear()
        if first is None:
            first = turn
        else:
            between.append(turn.encoded())

    for part in parts:
        if part.first is None:
            continue
        if running and not running[0].takes(part.first):
            close()
        running.append(part.first)
        if part.last is not None:
            close()
            between.append(part.between)
            running.append(part.last)
    if not running:
        return Turns()
    last = running[0].with_all(running[1:]) if len(running) > 1 else running[0]
    return Turns(last) if first is None else Turns(first, together(*between), last)


def _joined_alone(turns: Iterable[T]) -> Turns[T]:
    return joined([Turns(turn) for turn in turns])


class TurnsRecipe(Generic[T]):
    """Makes the turns of each message."""

    def __init__(self, turns: Callable[[Message], Iterable[T]]) -> None:
        self._turns = turns

    def made(self, message: Message) -> Turns[T]:
        """Write the turns of one message."""
        return _joined_alone(self._turns(message))

    def joined(self, parts: Sequence[Turns[T]]) -> Turns[T]:
        """Return the turns of messages that follow each other."""
        return joined(parts)

    def size(self, made: Turns[T]) -> int:
        """Return about how many bytes they are."""
        return len(made.encoded()) + _SIZE


@dataclass(frozen=True, slots=True)
class Phases(Generic[T]):
    """Turns as they are told while the last one goes on, and when it is over; mostly these are the same."""

    over: Turns[T]
    running: Turns[T]


class PhasesRecipe(Generic[T]):
    """Makes the turns of messages that are told otherwise as long as their turn goes on.

    `turns` takes a message and whether its turn goes on, `differs` says of which messages that matters.
    """

    def __init__(self, turns: Callable[[Message, bool], Iterable[T]], differs: Callable[[Message], bool]) -> None:
        self._turns, self._differs = turns, differs

    def made(self, message: Message) -> Phases[T]:
        """Write the turns of one message."""
        over = _joined_alone(self._turns(message, False))
        if not self._differs(message):
            return Phases(over, over)
        return Phases(over, _joined_alone(self._turns(message, True)))

    def joined(self, parts: Sequence[Phases[T]]) -> Phases[T]:
        """Return the turns of messages that follow each other."""
        over = joined([part.over for part in parts])
        if all(part.running is part.over for part in parts):
            return Phases(over, over)
        return Phases(over, joined([part.running for part in parts]))

    def size(self, made: Phases[T]) -> int:
        """Return about how many bytes they are."""
        size = len(made.over.encoded()) + _SIZE
        return size if made.running is made.over else 2 * size


async def turns_of(form: PhasesRecipe[T], messages: Sequence[bytes], fragments: Fragments, *, goes_on: int) -> Turns[T]:
    """Return the turns of a history; those from the place `goes_on` on are told as the turn that goes on."""
    over = (await fragments.of(form, messages[:goes_on])).over
    running = (await fragments.of(form, messages[goes_on:])).running
    return joined([over, running])
