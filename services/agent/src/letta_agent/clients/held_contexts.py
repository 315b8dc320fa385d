"""The contexts that this replica saw last, so that memory answers only with what is newer."""

from __future__ import annotations

from dataclasses import dataclass

from cachetools import LRUCache

from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1.block_pb2 import Block

MOST_BYTES = 64 << 20  # a bound for this process; what does not fit is read from memory whole
_OBJECTS = 1024
"""Bytes of a context without messages, about: the objects around it."""


@dataclass(frozen=True, slots=True)
class Held:
    """A context as memory answered it last."""

    mark: pb.HeldContext
    messages: tuple[bytes, ...]
    blocks: tuple[Block, ...]
    size: int


class HeldContexts:
    """Contexts by their conversation, those used last, of at most so many bytes together."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._held: LRUCache[tuple[str, str], Held] = LRUCache(most_bytes, getsizeof=_weight)

    def find(self, organization_id: str, conversation_id: str) -> Held | None:
        """Return what is held of a conversation."""
        return self._held.get((organization_id, conversation_id))

    def complete(self, key: tuple[str, str], held: Held | None, answer: pb.BeginStepResponse) -> pb.BeginStepResponse:
        """Put what was held before what memory answered, keep it, and return the whole context."""
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
        # Positions are memory's: only it knows what it has appended since.
        mark.version, mark.next_position = answer.version, answer.next_position
        size = (held.size if held is not None and before else 0) + sum(map(len, newer))
        try:
            self._held[key] = Held(mark, messages, blocks, size)
        except ValueError:  # it alone is larger than all that may be held
            self._held.pop(key, None)
        return answer


def _weight(held: Held) -> int:
    return _OBJECTS + held.size + sum(block.ByteSize() for block in held.blocks)
