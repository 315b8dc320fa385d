"""The context of a run while it is worked on: blocks, messages as bytes, and an estimate of its size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TypeVar

from letta.common.v1 import message_pb2
from letta.memory.v1 import block_pb2
from letta.memory.v1 import context_service_pb2 as memory_pb2
from letta_agent.domain.peers.memory import Message

BYTES_PER_TOKEN = 4  # about, for text; a vendor's count takes its place after the first step
IMAGE_TOKENS = 1_600  # about what vendors count for a large image, however many bytes it has
_SLICE = 256  # messages read before everybody else gets a turn: about a thousandth of a second
_ROLE = message_pb2.MessageRole
T = TypeVar("T")


class WorkingContext:
    """What the next prompt is made of. Messages stay serialized; only those that decide something are parsed."""

    def __init__(self, begun: memory_pb2.BeginStepResponse, *, tokens: int = 0, input_bytes: int = 0) -> None:
        self.blocks: dict[str, block_pb2.Block] = {block.id: block for block in begun.blocks}
        self.messages: list[bytes] = _without_system(begun.messages)
        self.message_count = begun.message_count
        self.passage_count = begun.passage_count
        self.directories = begun.directories if begun.HasField("directories") else None
        self._known = tokens
        # Without a known size all messages are estimated, these among them.
        self._fresh = input_bytes if tokens else 0

    def add(self, messages: Iterable[Message]) -> None:
        """Append messages."""
        for message in messages:
            data = message.SerializeToString()
            self.messages.append(data)
            self._fresh += len(data)

    def learn(self, committed: memory_pb2.CommitStepResponse) -> None:
        """Take over what a commit said about blocks and files."""
        for block in committed.changed_blocks:
            self.blocks[block.id] = block
        for block_id in committed.detached_block_ids:
            self.blocks.pop(block_id, None)
        if committed.HasField("directories"):
            self.directories = committed.directories
        elif not committed.directories_version:
            self.directories = None

    def _replace(self, messages: Sequence[bytes]) -> None:
        """Begin anew with other messages."""
        self.messages = list(messages)
        self._known = 0

    def begin_at(self, message_id: str) -> None:
        """Forget what came before a message; before the words that led to the calls it answers, if it answers calls."""
        found = False
        for index in reversed(range(len(self.messages))):  # the newest first: what is sought stands near the end
            message = Message.FromString(self.messages[index])
            found = found or message.id == message_id
            if (
                found
                and message.role != _ROLE.MESSAGE_ROLE_APPROVAL
                and (message.id == message_id or _is_said(message))
            ):
                self._replace(self.messages[index:])
                return
        self._known = 0

    def shrink(self, summary: Message, first: str) -> None:
        """Evict what came before the first message kept; a summary stands for it."""
        kept = len(self.messages)
        if first:
            mark = first.encode()  # only who has it is parsed: what leaves may be long
            found = (
                at for at, data in enumerate(self.messages) if mark in data and Message.FromString(data).id == first
            )
            # Unknown: nothing is dropped, since a summary too many does less harm than messages too few.
            kept = next(found, 0)
        self._replace([summary.SerializeToString(), *self.messages[kept:]])

    def measured(self, tokens: int) -> None:
        """Take over the size that the model's vendor counted."""
        self._known = tokens
        self._fresh = 0

    @property
    def counted(self) -> bool:
        """Say whether the estimate rests on a count of the vendor."""
        return self._known > 0

    def estimate(self, overhead: int) -> int:
        """Estimate the tokens of the prompt; `overhead` are the bytes of instructions and tools."""
        if self._known:
            return self._known + self._fresh // BYTES_PER_TOKEN
        return (overhead + sum(map(len, self.messages))) // BYTES_PER_TOKEN

    async def measure(self, overhead: int) -> int:
        """Estimate more closely by reading the messages: an image is not worth its bytes."""
        return overhead // BYTES_PER_TOKEN + sum([tokens async for _, tokens in read_all(self.messages)])

    def versions(self) -> list[memory_pb2.BlockVersion]:
        """Return the versions of the blocks."""
        return [memory_pb2.BlockVersion(block_id=block.id, version=block.version) for block in self.blocks.values()]

    @property
    def directories_version(self) -> int:
        """Return the version of the directories; 0 without folders."""
        return self.directories.version if self.directories is not None else 0


async def slices(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """Yield what may be long in slices; between two of them everybody else gets a turn."""
    for at in range(0, len(items), _SLICE):
        if at:
            await asyncio.sleep(0)
        yield items[at : at + _SLICE]


async def read_all(messages: Sequence[bytes]) -> AsyncIterator[tuple[Message, int]]:
    """Yield messages with an estimate of their tokens, read in slices: a context may be long."""
    async for part in slices(messages):
        for data in part:
            message = Message.FromString(data)
            yield message, message_tokens(message, len(data))


def message_tokens(message: Message, size: int) -> int:
    """Estimate the tokens of a message of so many bytes."""
    images = [part for part in message.parts if part.HasField("image")]
    spent = sum(len(part.image.SerializeToString()) for part in images)
    return (size - spent) // BYTES_PER_TOKEN + IMAGE_TOKENS * len(images) + 4  # 4: what stands around a message


def _is_said(message: Message) -> bool:
    return message.role == _ROLE.MESSAGE_ROLE_USER and not message.is_automated


def _without_system(messages: Sequence[bytes]) -> list[bytes]:
    """Leave out the system prompt that opens the window: each step has its own."""
    if messages and Message.FromString(messages[0]).role == _ROLE.MESSAGE_ROLE_SYSTEM:
        return list(messages[1:])
    return list(messages)
