"""Vectors that were made, remembered by what they were made of: bounded in bytes, as a whole and per organization."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from letta_llm_gateway.domain.catalogue.providers import Vector
from letta_llm_gateway.domain.leaving import LeavingCache

ENTRY_BYTES = 470
"""What an entry takes beside its vector, about: its key, and its places in two caches."""


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
        self._most_of_one = min(most_bytes, most_of_one)
        self._all: LeavingCache[TextKey, array[float]] = LeavingCache(most_bytes, self._left, _size)
        self._of: dict[str, LeavingCache[TextKey, array[float]]] = {}

    @property
    def bytes(self) -> int:
        """Return about how much memory is taken."""
        return int(self._all.currsize)

    def get(self, key: TextKey) -> Vector | None:
        """Return the vector of a text, or None."""
        vector = self._all.get(key)
        return None if vector is None else self._of[key.organization_id].get(key)

    def put(self, key: TextKey, vector: Vector) -> None:
        """Remember a vector."""
        # Four bytes a number in the place of a Python object each.
        packed = array("f", vector)
        if _size(packed) > self._most_of_one or self.get(key) is not None:
            return
        # What is beyond the organization's share goes out of both caches, before room is made at the others' expense.
        self._share(key.organization_id)[key] = packed
        self._all[key] = packed

    def _share(self, organization_id: str) -> LeavingCache[TextKey, array[float]]:
        if organization_id not in self._of:
            self._of[organization_id] = LeavingCache(self._most_of_one, lambda key, _: self._all.pop(key), _size)
        return self._of[organization_id]

    def _left(self, key: TextKey, _vector: array[float]) -> None:
        mine = self._of[key.organization_id]
        del mine[key]
        if not mine:
            del self._of[key.organization_id]


def _size(vector: Sequence[float]) -> int:
    return 4 * len(vector) + ENTRY_BYTES


def unit(vector: Vector) -> Vector:
    """Return the vector with length 1; one of length 0 stays as it is."""
    length = math.sqrt(sum(value * value for value in vector))
    # Most vendors send unit vectors, which another division would only round.
    return vector if not length or abs(length - 1) < 1e-4 else [value / length for value in vector]
