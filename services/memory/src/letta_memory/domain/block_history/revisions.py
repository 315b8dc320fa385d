"""What became of blocks: each write is a revision, which can be looked at, compared and brought back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from letta.memory.v1.block_history_service_pb2 import DiffBlockRevisionsResponse
from letta.memory.v1.block_pb2 import Block
from letta.memory.v1.block_revision_pb2 import (
    BLOCK_WRITE_REDO,
    BLOCK_WRITE_RESTORE,
    BLOCK_WRITE_UNDO,
    BlockRevision,
    BlockWrite,
)
from letta_common.actor import Actor
from letta_common.errors import NothingToRedo, NothingToUndo
from letta_common.values.paging import Page
from letta_memory.domain.block_history.diffs import unified_diff
from letta_memory.domain.blocks import Blocks, Written

_CONTENT = ("label", "value", "description")

Moves = Mapping[int, int]
"""Versions that undid or did again, each with the version whose content it has."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the order of writes: the transaction, and within it the block and its version."""

    transaction: int
    block: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """Writes that one look found, the first transaction that may have more to tell, and the newest there is."""

    writes: Sequence[Position]
    unsettled: int
    newest: int


class BlockHistoryStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def list_revisions(self, actor: Actor, block_id: str, page: Page) -> list[BlockRevision]:
        """Return a page of a block's revisions. Raises BlockNotFound, CursorNotFound."""
        ...

    async def get_revision(self, actor: Actor, block_id: str, version: int) -> BlockRevision:
        """Return a revision, for 0 the present one. Raises BlockNotFound, BlockRevisionNotFound."""
        ...

    async def renew_watch(self, actor: Actor, until: datetime) -> None:
        """Have writes of the organization told to those who wait, up to a time."""
        ...

    async def list_moves(self, actor: Actor, block_id: str) -> Moves:
        """Return the versions of a block that undid or did again."""
        ...

    async def list_writes(self, actor: Actor, agent_id: str, after: Position, limit: int) -> Look:
        """Return writes after a position, in order, of transactions before which all are over."""
        ...

    async def list_present(self, actor: Actor, agent_id: str, limit: int) -> dict[str, int]:
        """Return which blocks there are, of an agent or all, with their versions. Raises AgentNotFound."""
        ...


class BlockHistory:
    """Operations on the revisions of blocks."""

    def __init__(self, blocks: Blocks, store: BlockHistoryStore) -> None:
        self._blocks = blocks
        self._store = store

    async def diff(self, actor: Actor, block_id: str, former: int, other: int) -> DiffBlockRevisionsResponse:
        """Tell how the text of one revision becomes that of another, 0 being the present one.

        Raises:
            BlockNotFound: the organization has no such block.
            BlockRevisionNotFound: it has no such revision.
        """
        old = await self._store.get_revision(actor, block_id, former)
        new = await self._store.get_revision(actor, block_id, other)
        names = (f"version {old.version}", f"version {new.version}")
        told = await asyncio.to_thread(unified_diff, old.value, new.value, names)
        return DiffBlockRevisionsResponse(unified_diff=told, former=old, other=new)

    async def restore(self, actor: Actor, block_id: str, version: int, etag: str) -> Block:
        """Give a block the content of a former revision.

        Raises:
            BlockNotFound: the organization has no such block.
            BlockRevisionNotFound: it has no such revision.
            StaleEtag: somebody wrote since the etag was read, or again and again meanwhile.
            BlockLimitExceeded: the text is longer than the limit now is.
            BlockLabelTaken: an agent of the block has another one of the label.
        """
        return await self._written(actor, block_id, etag, BLOCK_WRITE_RESTORE, lambda _head, _moves: version)

    async def undo(self, actor: Actor, block_id: str, etag: str) -> Block:
        """Undo the last write that is not undone. Raises as `restore` does, and NothingToUndo."""

        def target(head: int, moves: Moves) -> int:
            found = undone(head, moves)
            if not found:
                raise NothingToUndo(f"block {block_id} is as it was made", block_id=block_id)
            return found

        return await self._written(actor, block_id, etag, BLOCK_WRITE_UNDO, target)

    async def redo(self, actor: Actor, block_id: str, etag: str) -> Block:
        """Do again what was undone last. Raises as `restore` does, and NothingToRedo."""

        def target(head: int, moves: Moves) -> int:
            found = redone(head, moves)
            if not found:
                raise NothingToRedo(f"nothing of block {block_id} is undone", block_id=block_id)
            return found

        return await self._written(actor, block_id, etag, BLOCK_WRITE_REDO, target)

    async def _written(
        self,
        actor: Actor,
        block_id: str,
        etag: str,
        kind: BlockWrite.ValueType,
        target: Callable[[int, Moves], int],
    ) -> Block:
        async def given(block: Block) -> tuple[Block, Written]:
            moves = await self._store.list_moves(actor, block_id) if kind != BLOCK_WRITE_RESTORE else {}
            version = target(block.version, moves)
            revision = await self._store.get_revision(actor, block_id, version)
            content = Block(label=revision.label, value=revision.value)
            if revision.HasField("description"):
                content.description = revision.description
            return content, Written(kind, version)

        return await self._blocks.rewrite(actor, block_id, etag, given, _CONTENT)


def _cursor(version: int, moves: Moves) -> int:
    """Return the version whose content a version has, when that was undone to or done again."""
    return moves.get(version, version)


def undone(head: int, moves: Moves) -> int:
    """Return the version to undo to; 0 at the first one."""
    at = _cursor(head, moves)
    return _cursor(at - 1, moves) if at > 1 else 0


def redone(head: int, moves: Moves) -> int:
    """Return the version to do again; 0 when nothing is undone since the last write of another kind."""
    at = _cursor(head, moves)
    step = head
    while step in moves:
        step -= 1
    while step > at:
        before = _cursor(step - 1, moves)
        if before == at:
            return step
        step = before
    return 0
