"""The contexts that this replica saw last, so that memory answers only with what is newer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from sys import getsizeof

from cachetools import LRUCache

from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1.agent_file_pb2 import Directories
from letta.memory.v1.block_pb2 import Block

MOST_BYTES = 64 << 20  # a bound for this process; what does not fit is read from memory whole
_OBJECTS = 1024
"""Bytes of a context without messages, about: the objects around it."""

Ask = Callable[[pb.BeginStepRequest], Awaitable[pb.BeginStepResponse]]


@dataclass(frozen=True, slots=True)
class Held:
    """A context as memory answered it last."""

    mark: pb.HeldContext
    messages: tuple[bytes, ...]
    blocks: tuple[Block, ...]
    directories: Directories | None
    size: int


class HeldContexts:
    """Contexts by their conversation, those used last, of at most so many bytes together."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._held: LRUCache[tuple[str, str], Held] = LRUCache(most_bytes, getsizeof=_weight)

    async def begin(self, organization_id: str, request: pb.BeginStepRequest, ask: Ask) -> pb.BeginStepResponse:
        """Ask memory for what is newer than what is held, keep both, and return the whole context."""
        key = (organization_id, request.conversation_id)
        held = self._held.get(key)
        request.ClearField("held")  # a request that is tried again may name what has made room for others since
        if held is not None:
            request.held.CopyFrom(held.mark)
        answer = await ask(request)
        return self._complete(key, held, request, answer)

    def _complete(
        self, key: tuple[str, str], held: Held | None, request: pb.BeginStepRequest, answer: pb.BeginStepResponse
    ) -> pb.BeginStepResponse:
        before = held.messages if held is not None and answer.messages_held else ()
        newer = tuple(answer.messages)
        messages = (*before, *newer)
        if before:
            del answer.messages[:]
            answer.messages.extend(messages)
        if held is not None and answer.blocks_held:
            blocks, mark = held.blocks, pb.HeldContext(blocks=held.mark.blocks)
            answer.blocks.extend(blocks)
        else:
            blocks = tuple(pb.BeginStepResponse(blocks=answer.blocks).blocks)  # copies: the caller may change its own
            mark = pb.HeldContext(blocks=[pb.BlockVersion(block_id=b.id, version=b.version) for b in blocks])
        directories = self._directories(held, answer)
        mark.directories_version = answer.directories_version
        # Positions are memory's: only it knows what it has appended since.
        mark.version, mark.next_position = answer.version, answer.next_position
        # The input is the last of the context. Without one memory cannot tell whether what is held is still true.
        mark.last_message_id = request.input[-1].id if request.input else ""
        size = (held.size if held is not None and before else 0) + sum(map(getsizeof, newer))
        try:
            self._held[key] = Held(mark, messages, blocks, directories, size)
        except ValueError:  # it alone is larger than all that may be held
            self._held.pop(key, None)
        return answer

    @staticmethod
    def _directories(held: Held | None, answer: pb.BeginStepResponse) -> Directories | None:
        """Complete the directories of an answer; return what is to be held of them."""
        if not answer.directories_version:
            return None
        if answer.HasField("directories"):
            return answer.directories
        if held is None or held.directories is None:
            return None
        answer.directories.CopyFrom(held.directories)
        return held.directories


def _weight(held: Held) -> int:
    files = held.directories.ByteSize() if held.directories else 0
    return _OBJECTS + held.size + files + sum(block.ByteSize() for block in held.blocks)
