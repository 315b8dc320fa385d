"""Bodies of requests as bytes: a head that is written for each, and a history that was written before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from letta.common.v1.message_pb2 import Message

Json = dict[str, Any]


def encoded(value: Any) -> bytes:
    """Write a value as JSON, whole numbers of any size too."""
    try:
        return orjson.dumps(value)
    except TypeError:  # numbers beyond 64 bits, and what is nested deeper than it writes
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def inside(text: str) -> bytes:
    """Write a text as JSON without its quotes, so that others may be put beside it."""
    return orjson.dumps(text)[1:-1]


def listed(items: Iterable[Any]) -> bytes:
    """Write values as JSON with commas between them."""
    return b",".join(map(encoded, items))


def together(*parts: bytes) -> bytes:
    """Return lists of values as one; empty ones leave no comma."""
    return b",".join(filter(None, parts))


@dataclass(frozen=True, slots=True)
class Body:
    """A request: an object whose largest member, the history, is a list that was written before."""

    head: Json
    name: str
    """What the vendor calls the list."""
    items: bytes
    """The list's values, with commas between them."""

    def encoded(self, **more: Any) -> bytes:
        """Write the body, with more members in its head."""
        head = encoded({**self.head, **more})
        return b"".join((head[:-1], b"," if len(head) > 2 else b"", _opened(self.name), self.items, b"]}"))

    def only(self, names: Sequence[str]) -> Body:
        """Return the body with these members of its head alone."""
        return Body({name: self.head[name] for name in names if name in self.head}, self.name, self.items)


def _opened(name: str) -> bytes:
    """Write the beginning of a member that is a list."""
    return b'"%s":[' % name.encode()


class ItemsRecipe:
    """Makes the items of each message on wires where they stand alone, written as JSON with commas between them."""

    def __init__(self, items: Callable[[Message], Iterable[Json]]) -> None:
        self._items = items

    def made(self, message: Message) -> bytes:
        """Write the items of one message."""
        return listed(self._items(message))

    def joined(self, parts: Sequence[bytes]) -> bytes:
        """Return the items of messages that follow each other."""
        return together(*parts)

    def size(self, made: bytes) -> int:
        """Return how many bytes they are."""
        return len(made)
