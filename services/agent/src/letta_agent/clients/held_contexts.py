"""The contexts that this replica saw last, so that memory answers only with what is newer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from sys import getsizeof

from cachetools import LRUCache

from letta.memory.v1 import context_service_pb2 as pb

MOST_BYTES = 64 << 20  # a bound for this process; what does not fit is read from memory whole
_OBJECTS = 1024
"""Bytes of a context without messages, about: the objects around it."""

Ask = Callable[[pb.BeginStepRequest], Awaitable[pb.BeginStepResponse]]


@dataclass(frozen=True, slots=True)
class Held:
    """A context as memory answered it last."""

    mark: pb.HeldContext
    messages: tuple[bytes, ...]
    shown: pb.BeginStepResponse
    """Blocks and directories alone."""
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
            answer.blocks.extend(held.shown.blocks)
        if held is not None and answer.directories_version and not answer.HasField("directories"):
            answer.directories.CopyFrom(held.shown.directories)
        version = answer.directories_version
        if held is not None and answer.blocks_held and held.mark.directories_version == version:
            shown, mark = held.shown, pb.HeldContext(blocks=held.mark.blocks)
        else:
            directories = answer.directories if version else None
            # Copies: the caller may change its own.
            shown = pb.BeginStepResponse(blocks=answer.blocks, directories=directories)
            mark = pb.HeldContext(blocks=[pb.BlockVersion(block_id=b.id, version=b.version) for b in shown.blocks])
        # Positions are memory's: only it knows what it has appended since.
        mark.version, mark.next_position, mark.directories_version = answer.version, answer.next_position, version
        # The input is the last of the context. Without one memory cannot tell whether what is held is still true.
        mark.last_message_id = request.input[-1].id if request.input else ""
        size = (held.size if held is not None and before else 0) + sum(map(getsizeof, newer))
        try:
            self._held[key] = Held(mark, messages, shown, size)
        except ValueError:  # it alone is larger than all that may be held
            self._held.pop(key, None)
        return answer


def _weight(held: Held) -> int:
    return _OBJECTS + held.size + held.shown.ByteSize()
