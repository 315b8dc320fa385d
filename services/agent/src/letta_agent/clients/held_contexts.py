"""The contexts that this replica saw last, so that memory answers only with what is newer."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1.block_pb2 import Block

MOST_BYTES = 64 << 20


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
        self._most_bytes = most_bytes
        self._size = 0
        self._held: OrderedDict[tuple[str, str], Held] = OrderedDict()

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
        mark.version, mark.next_position = answer.version, answer.next_position
        size = (held.size if held is not None and before else 0) + sum(map(len, newer))
        self._keep(key, Held(mark, messages, blocks, size))
        return answer

    def _keep(self, key: tuple[str, str], held: Held) -> None:
        before = self._held.pop(key, None)
        self._size += held.size - (before.size if before else 0)
        self._held[key] = held
        while self._size > self._most_bytes:
            _, oldest = self._held.popitem(last=False)
            self._size -= oldest.size
