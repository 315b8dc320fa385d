"""Vectors that were made, remembered by what they were made of: bounded in bytes, as a whole and per organization."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from letta_llm_gateway.domain.providers import Vector

_ENTRY_BYTES = 200
"""What an entry holds beside its vector, about."""


@dataclass(frozen=True, slots=True)
class TextKey:
    """Whose text, embedded by which model, and which: a hash of it."""

    organization_id: str
    handle: str
    digest: bytes


def key_of(organization_id: str, handle: str, text: str) -> TextKey:
    """Return the key of a text. Organizations share nothing, so that none learns what others embed."""
    return TextKey(organization_id, handle, hashlib.sha256(text.encode(errors="surrogatepass")).digest())


class VectorCache:
    """Remembers the vectors used last; an organization never crowds out more than its share of the others'."""

    def __init__(self, most_bytes: int, most_of_one: int) -> None:
        self._most, self._most_of_one = most_bytes, most_of_one
        self._of: OrderedDict[str, OrderedDict[TextKey, array[float]]] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self.bytes = 0

    def get(self, key: TextKey) -> Vector | None:
        """Return the vector of a text, or None."""
        mine = self._of.get(key.organization_id)
        found = None if mine is None else mine.get(key)
        if mine is not None and found is not None:
            mine.move_to_end(key)
            self._of.move_to_end(key.organization_id)
        return found

    def put(self, key: TextKey, vector: Vector) -> None:
        """Remember a vector."""
        packed = array("f", vector)
        size = _size(packed)
        if size > self._most_of_one or self.get(key) is not None:
            return
        organization_id = key.organization_id
        self._of.setdefault(organization_id, OrderedDict())[key] = packed
        self._of.move_to_end(organization_id)
        self._sizes[organization_id] = self._sizes.get(organization_id, 0) + size
        self.bytes += size
        while self._sizes.get(organization_id, 0) > self._most_of_one:
            self._forget_one(organization_id)
        while self.bytes > self._most:
            self._forget_one(next(iter(self._of)))

    def _forget_one(self, organization_id: str) -> None:
        mine = self._of[organization_id]
        _, vector = mine.popitem(last=False)
        self._sizes[organization_id] -= _size(vector)
        self.bytes -= _size(vector)
        if not mine:
            del self._of[organization_id], self._sizes[organization_id]


def _size(vector: Sequence[float]) -> int:
    return 4 * len(vector) + _ENTRY_BYTES


def unit(vector: Vector) -> Vector:
    """Return the vector with length 1; one of length 0 stays as it is."""
    length = math.sqrt(sum(value * value for value in vector))
    return vector if not length or abs(length - 1) < 1e-4 else [value / length for value in vector]
