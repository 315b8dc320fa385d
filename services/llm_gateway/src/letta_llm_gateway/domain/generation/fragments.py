"""What is made of the messages of histories, each message read once: kept by its bytes, within a bound of memory."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol, TypeVar

from cachetools import LRUCache
from google.protobuf.message import DecodeError

from letta.common.v1.message_pb2 import Message
from letta_common.errors import InvalidArgument

Made = TypeVar("Made")
MOST_BYTES = 64 << 20
_BLOCK = 32
"""Messages that are looked up at once, counted from the beginning, so that a history which grows finds its own."""
_OVERHEAD = 700
"""Bytes of memory that an entry takes beside what it holds: its places in the cache, its key, the objects around it."""
_OBJECT = 41
"""Bytes that a message takes in a block beside its own."""
_LARGEST_SHARE = 16
"""What takes more than this part of the memory is not kept, so that one image does not drive out all texts."""
_RECIPES = 4
"""Recipes that read the same history for one call, at most; each keeps no more of it than its part of the memory.

A history that is larger finds its beginning at each step. Kept as a whole, its end would drive out its beginning, its
beginning would at the next step drive out its end, and nothing would ever be found.
"""


class Recipe(Protocol[Made]):
    """What is made of messages: of each alone, so that it may be kept, and of many by joining."""

    def made(self, message: Message) -> Made:
        """Read one message."""
        ...

    def joined(self, parts: Sequence[Made]) -> Made:
        """Return what is made of messages that follow each other."""
        ...

    def size(self, made: Made) -> int:
        """Return about how many bytes something made takes."""
        ...


class Fragments:
    """Makes something of histories without reading again what it has read: a step costs what its new messages do.

    What was made of a message is found by the message's bytes alone, so organizations may share it: who does not know
    a message cannot find it.
    """

    def __init__(self, most_bytes: int = MOST_BYTES, *, block: int = _BLOCK) -> None:
        self._kept: LRUCache[Hashable, tuple[Any, int]] = LRUCache(most_bytes, getsizeof=lambda entry: entry[1])
        self._largest, self._block_length = most_bytes // _LARGEST_SHARE, block
        self._most_of_one = most_bytes // _RECIPES
        self._read = 0

    @property
    def read(self) -> int:
        """Return how many times a message was read since the start."""
        return self._read

    @property
    def bytes_kept(self) -> int:
        """Return about how much memory is taken."""
        return int(self._kept.currsize)

    def of(self, recipe: Recipe[Made], messages: Sequence[bytes]) -> Made:
        """Return what is made of a history. Raises InvalidArgument for bytes that are no message."""
        messages = tuple(messages)
        length = self._block_length
        whole = len(messages) - len(messages) % length
        parts, room = [], self._most_of_one
        for at in range(0, whole, length):
            made, size = self._block(recipe, messages[at : at + length], room)
            parts.append(made)
            room -= size
        for message in messages[whole:]:
            made, size = self._one(recipe, message, room)
            parts.append(made)
            room -= size
        return recipe.joined(parts)

    def _block(self, recipe: Recipe[Made], messages: tuple[bytes, ...], room: int) -> tuple[Made, int]:
        if (found := self._kept.get((recipe, messages))) is not None:
            return found
        made = recipe.joined([self._one(recipe, message, 0)[0] for message in messages])
        for message in messages:  # found as a block from now on; kept twice they would take five times the memory
            self._kept.pop((recipe, message), None)
        return self._keep(recipe, messages, made, sum(map(len, messages)) + _OBJECT * len(messages), room)

    def _one(self, recipe: Recipe[Made], message: bytes, room: int) -> tuple[Made, int]:
        if (found := self._kept.get((recipe, message))) is not None:
            return found
        self._read += 1
        return self._keep(recipe, message, recipe.made(read(message)), len(message), room)

    def _keep(self, recipe: Recipe[Made], key: Hashable, made: Made, key_bytes: int, room: int) -> tuple[Made, int]:
        """Return what was made and how much memory it takes, if there is room."""
        size = recipe.size(made) + key_bytes + _OVERHEAD
        if size > min(self._largest, room):
            return made, 0
        self._kept[(recipe, key)] = made, size
        return made, size


def read(message: bytes) -> Message:
    """Read a message of a prompt. Raises InvalidArgument for bytes that are none."""
    try:
        return Message.FromString(message)
    except DecodeError as error:
        raise InvalidArgument(
            "a message of the prompt is no serialized letta.common.v1.Message; send it as it is kept",
            field="prompt.messages",
        ) from error
