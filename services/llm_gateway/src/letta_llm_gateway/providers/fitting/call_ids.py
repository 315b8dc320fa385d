"""Ids of tool calls as vendors take them: unique within a request, of one form, the same for the same history.

Calls that this gateway made have ids that every vendor takes. Others come with histories that were made elsewhere, or
by earlier releases, which kept what vendors said: ids that repeat over steps, are too long or have other letters.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections import defaultdict, deque

FORM = re.compile(r"[A-Za-z0-9]{9}")
"""What Mistral demands; every other vendor takes it."""
_ALPHABET = string.digits + string.ascii_letters


class RequestIds:
    """Gives the calls of one request their ids, in order, and their results the ids of their calls."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._open: defaultdict[str, deque[str]] = defaultdict(deque)
        self._last: dict[str, str] = {}

    def turn(self) -> None:
        """Begin the next message of the model; what an earlier one called has its results, or never will."""
        self._open.clear()

    def call(self, id: str) -> str:
        """Return the id under which a call goes out."""
        told, turn = id, 0
        while told in self._used or not FORM.fullmatch(told):
            told, turn = _made(f"{id}#{turn}"), turn + 1
        self._used.add(told)
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
