"""Turns of content blocks, as Anthropic's messages and Bedrock's Converse have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from letta.common.v1.message_pb2 import ContentPart, Message
from letta_llm_gateway.providers.wires.bodies import Json, listed, together
from letta_llm_gateway.providers.wires.told import is_models
from letta_llm_gateway.providers.wires.turns import TurnsRecipe

_THOUGHTS = frozenset({"reasoning", "redacted_reasoning"})


@dataclass(frozen=True, slots=True)
class BlockTurn:
    """A turn, its blocks written as JSON in the order that these vendors demand."""

    role: str
    results: bytes = b""
    thoughts: bytes = b""
    others: bytes = b""

    def takes(self, other: BlockTurn) -> bool:
        """Say whether both are of one speaker: neighbours of one role are one message."""
        return self.role == other.role

    def with_all(self, others: Sequence[BlockTurn]) -> BlockTurn:
        """Return this turn and others of its speaker as one."""
        all_ = (self, *others)
        return BlockTurn(
            self.role,
            together(*(each.results for each in all_)),
            together(*(each.thoughts for each in all_)),
            together(*(each.others for each in all_)),
        )

    def encoded(self) -> bytes:
        """Write the turn as JSON."""
        # An assistant's turn must begin with its thoughts and a user's with its results.
        before = (self.results, self.thoughts) if self.role == "user" else (self.thoughts, self.results)
        return b'{"role":"%s","content":[%s]}' % (self.role.encode(), together(*before, self.others))


class ResultWriter(Protocol):
    """Writes the result of a call as one vendor has it."""

    def __call__(self, call_id: str, content: str, *, failed: bool) -> Json:
        """Return the block."""
        ...


def block_turns(block: Callable[[ContentPart], Json | None], result: ResultWriter) -> TurnsRecipe[BlockTurn]:
    """Return the recipe of a wire: `block` writes every part but results, and leaves out what the vendor refuses."""

    def turns(message: Message) -> Iterator[BlockTurn]:
        results: list[Json] = []
        thoughts: list[Json] = []
        others: list[Json] = []
        for part in message.parts:
            kind = part.WhichOneof("part")
            if kind == "tool_return":
                returned = part.tool_return
                results.append(result(returned.tool_call_id, returned.content, failed=returned.is_error))
            elif made := block(part):
                (thoughts if kind in _THOUGHTS else others).append(made)
        if results or thoughts or others:
            role = "assistant" if is_models(message) else "user"
            yield BlockTurn(role, listed(results), listed(thoughts), listed(others))

    return TurnsRecipe(turns)
