"""Ids of tool calls as vendors take them: unique within a request, of one form, the same for the same history.

Calls that this gateway made have ids that every vendor takes. Others come with histories that were made elsewhere, or
by earlier releases, which kept what vendors said: ids that repeat over steps, are too long or have other letters.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from letta.common.v1.message_pb2 import Message, MessageRole
from letta_llm_gateway.domain.generation.fragments import Fragments

FORM = re.compile(r"[A-Za-z0-9]{9}")
"""What Mistral demands; every other vendor takes it."""
_ALPHABET = string.digits + string.ascii_letters


Met = tuple[tuple[bool, str], ...]
"""The ids in a message, in order, each with whether it is a call's; the others are those of results."""


class RequestIds:
    """Gives the calls of one request their ids, in order, and their results the ids of their calls."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._open: defaultdict[str, deque[str]] = defaultdict(deque)
        self._last: dict[str, str] = {}
        self._turns: dict[str, int] = {}

    def told(self, met: Met) -> Iterator[str]:
        """Yield the ids of a message as they go out."""
        if any(called for called, _ in met):
            self.turn()
        for called, id in met:
            yield self.call(id) if called else self.result(id)

    def turn(self) -> None:
        """Begin the next message of the model; what an earlier one called has its results, or never will."""
        self._open.clear()

    def call(self, id: str) -> str:
        """Return the id under which a call goes out."""
        told, turn = id, self._turns.get(id, 0)  # what was tried before is taken
        while told in self._used or not FORM.fullmatch(told):
            told, turn = _made(f"{id}#{turn}"), turn + 1
        self._used.add(told)
        self._turns[id] = turn
        self._open[id].append(told)
        self._last[id] = told
        return told

    def result(self, id: str) -> str:
        """Return the id of the oldest call of this id that has no result yet, else of the last one."""
        waiting = self._open[id]
        if waiting:
            return waiting.popleft()
        return self._last.get(id) or (id if FORM.fullmatch(id) else _made(f"{id}#0"))


def _made(text: str) -> str:
    number = int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest()[:8])
    letters = []
    for _ in range(9):
        number, rest = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[rest])
    return "".join(letters)


async def are_plain(history: Sequence[bytes], fragments: Fragments) -> bool:
    """Say whether every id can go out as it is: in a form that all vendors take, and none twice."""
    return (await fragments.of(_CALLED, history)).plain


async def calls_of(history: Sequence[bytes], fragments: Fragments) -> Sequence[Met]:
    """Return the ids in each message."""
    return await fragments.of(_MET, history)


@dataclass(frozen=True, slots=True)
class _Called:
    ids: frozenset[str] = frozenset()
    plain: bool = True


class _CalledRecipe:
    def made(self, message: Message) -> _Called:
        if message.role == MessageRole.MESSAGE_ROLE_USER:
            return _Called()
        ids = [part.tool_call.id for part in message.parts if part.HasField("tool_call")]
        return _Called(frozenset(ids), len(ids) == len(set(ids)) and all(map(FORM.fullmatch, ids)))

    def joined(self, parts: Sequence[_Called]) -> _Called:
        ids = frozenset().union(*(part.ids for part in parts if part.ids))
        return _Called(ids, len(ids) == sum(len(part.ids) for part in parts) and all(part.plain for part in parts))

    def size(self, made: _Called) -> int:
        return 100 * (1 + len(made.ids))


class _MetRecipe:
    def made(self, message: Message) -> list[Met]:
        found: list[tuple[bool, str]] = []
        for part in message.parts:
            if part.HasField("tool_call"):
                found.append((True, part.tool_call.id))
            elif part.HasField("tool_return"):
                found.append((False, part.tool_return.tool_call_id))
        return [tuple(found)]

    def joined(self, parts: Sequence[list[Met]]) -> list[Met]:
        return [met for part in parts for met in part]

    def size(self, made: list[Met]) -> int:
        return sum(100 * (1 + len(met)) for met in made)


_CALLED, _MET = _CalledRecipe(), _MetRecipe()
