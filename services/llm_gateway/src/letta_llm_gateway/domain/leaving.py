"""Caches of what was used last, which tell who makes room for others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cachetools import LRUCache

K = TypeVar("K")
V = TypeVar("V")


class LeavingCache(LRUCache[K, V]):
    """Keeps what was used last; `leave` is called with each key and value that makes room for another."""

    def __init__(
        self, most: float, leave: Callable[[K, V], object], getsizeof: Callable[[V], float] | None = None
    ) -> None:
        super().__init__(most, getsizeof)
        self._leave = leave

    def popitem(self) -> tuple[K, V]:
        key, value = super().popitem()
        self._leave(key, value)
        return key, value
