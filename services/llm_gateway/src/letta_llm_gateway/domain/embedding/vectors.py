"""Vectors that were made, remembered by what they were made of: bounded in bytes, as a whole and per organization."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from letta_llm_gateway.domain.catalogue.providers import Vector

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
        self._of: OrderedDict[str, LRUCache[TextKey, array[float]]] = OrderedDict()
        self.bytes = 0.0

    def get(self, key: TextKey) -> Vector | None:
        """Return the vector of a text, or None."""
        mine = self._of.get(key.organization_id)
        if mine is None or key not in mine:
            return None
        self._of.move_to_end(key.organization_id)
        return mine[key]

    def put(self, key: TextKey, vector: Vector) -> None:
        """Remember a vector."""
        # Four bytes a number in the place of a Python object each.
        packed = array("f", vector)
        if _size(packed) > self._most_of_one or self.get(key) is not None:
            return
        mine = self._of.setdefault(key.organization_id, LRUCache(self._most_of_one, getsizeof=_size))
        self._of.move_to_end(key.organization_id)
        self.bytes -= mine.currsize
        mine[key] = packed
        self.bytes += mine.currsize
        while self.bytes > self._most:
            self._forget_one()

    def _forget_one(self) -> None:
        organization_id, mine = next(iter(self._of.items()))
        self.bytes -= mine.currsize
        mine.popitem()
        self.bytes += mine.currsize
        if not mine:
            del self._of[organization_id]


def _size(vector: Sequence[float]) -> int:
    return 4 * len(vector) + _ENTRY_BYTES


def unit(vector: Vector) -> Vector:
    """Return the vector with length 1; one of length 0 stays as it is."""
    length = math.sqrt(sum(value * value for value in vector))
    # Most vendors send unit vectors, which another division would only round.
    return vector if not length or abs(length - 1) < 1e-4 else [value / length for value in vector]
