"""What is made of the messages of histories, each message read once: kept by its bytes, within a bound of memory."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from cachetools import LRUCache
from google.protobuf.message import DecodeError

from letta.common.v1.message_pb2 import Message
from letta_common.errors import InvalidArgument

Made = TypeVar("Made")
MOST_BYTES = 64 << 20
_BLOCK = 32
"""Messages that are looked up at once, counted from the beginning, so that a history which grows finds its own."""
_SLICE = 64
"""Messages read, or blocks found, after which everybody else gets a turn: one or two thousandths of a second."""
_OVERHEAD = 700
"""Bytes of memory that an entry takes beside what it holds: its places in the cache, its key, the objects around it."""
_OBJECT = 41
"""Bytes that a message takes in a block beside its own."""
_LARGEST_SHARE = 16
"""What takes more than this part of the memory is not kept, so that one image does not drive out all texts."""
_RECIPES = 5
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


class SlowRecipe(ABC, Generic[Made]):
    """What takes so long to make of messages that it is made elsewhere, of several messages at once."""

    @abstractmethod
    async def made_of(self, messages: Sequence[Message]) -> Sequence[Made]:
        """Read messages; return what is made of each."""

    @abstractmethod
    def joined(self, parts: Sequence[Made]) -> Made:
        """Return what is made of messages that follow each other."""

    @abstractmethod
    def size(self, made: Made) -> int:
        """Return about how many bytes something made takes."""


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

    async def of(self, recipe: Recipe[Made] | SlowRecipe[Made], messages: Sequence[bytes]) -> Made:
        """Return what is made of a history. Raises InvalidArgument for bytes that are no message.

        A long history that is new is read in slices, between which others are served.
        """
        messages = tuple(messages)
        length = self._block_length
        whole = len(messages) - len(messages) % length
        parts, room, left = [], self._most_of_one, _SLICE
        for at in [*range(0, whole, length), *range(whole, len(messages))]:
            key = messages[at : at + length] if at < whole else messages[at]
            found, before = self._kept.get((recipe, key)), self._read
            made, size = await self._new(recipe, key, room) if found is None else found
            parts.append(made)
            room -= size
            left -= max(1, self._read - before)
            if left <= 0:
                left = _SLICE
                await asyncio.sleep(0)
        return recipe.joined(parts)

    async def _new(
        self, recipe: Recipe[Made] | SlowRecipe[Made], key: bytes | tuple[bytes, ...], room: int
    ) -> tuple[Made, int]:
        """Make something of a message or of a block of them, and keep it."""
        if isinstance(key, bytes):
            [made] = await self._made(recipe, [key])
            return self._keep(recipe, key, made, len(key), room)
        held = [self._kept.get((recipe, message)) for message in key]
        missing = [message for message, known in zip(key, held, strict=True) if known is None]
        new = iter(await self._made(recipe, missing))
        made = recipe.joined([next(new) if known is None else known[0] for known in held])
        for message in key:  # found as a block from now on; kept twice they would take five times the memory
            self._kept.pop((recipe, message), None)
        return self._keep(recipe, key, made, sum(map(len, key)) + _OBJECT * len(key), room)

    async def _made(self, recipe: Recipe[Made] | SlowRecipe[Made], messages: Sequence[bytes]) -> Sequence[Made]:
        self._read += len(messages)
        parsed = list(map(read, messages))
        return await recipe.made_of(parsed) if isinstance(recipe, SlowRecipe) else list(map(recipe.made, parsed))

    def _keep(
        self, recipe: Recipe[Made] | SlowRecipe[Made], key: Hashable, made: Made, key_bytes: int, room: int
    ) -> tuple[Made, int]:
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
