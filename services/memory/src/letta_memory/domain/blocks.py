"""Memory blocks: labelled texts that are always in the context of the agents they are attached to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from google.protobuf.field_mask_pb2 import FieldMask

from letta.memory.v1.block_pb2 import Block
from letta.memory.v1.block_revision_pb2 import BLOCK_WRITE_SET, BlockWrite
from letta.memory.v1.block_service_pb2 import CountBlocksRequest, ListBlocksRequest
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import AppError, BlockLimitExceeded, InvalidArgument, StaleEtag
from letta_common.values.ids import derived_id, new_id
from letta_common.values.paging import Page
from letta_rpc.masks import changed_paths, copy_paths

DEFAULT_LIMIT = 100_000  # characters, as the contract says
_ATTEMPTS = 5  # how often an update without an etag reads again because another writer was faster
_DESCRIPTIONS = {
    "human": "What I know about the person I talk with: name, circumstances, preferences. I keep it up to date.",
    "persona": "Who I am: my character, my manner of speaking and my rules of conduct.",
}
_ALL = FieldMask()
"""Names no field: each that is set."""


@dataclass(frozen=True, slots=True)
class Written:
    """How a revision came about, and the version whose content it has, if it is that of a former one."""

    kind: BlockWrite.ValueType = BLOCK_WRITE_SET
    restored_version: int | None = None


class BlockStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def create(self, actor: Actor, block: Block, *, request_hash: bytes = b"") -> Block:
        """Store a new block; return the one that has the id already, if one has.

        Raises:
            IdempotencyConflict: another request made that one.
        """
        ...

    async def get(self, actor: Actor, block_id: str) -> Block:
        """Return one block. Raises BlockNotFound."""
        ...

    async def get_of_agent(self, actor: Actor, agent_id: str, label: str) -> Block:
        """Return an agent's block of this label. Raises AgentNotFound, BlockNotFound."""
        ...

    async def list_blocks(self, actor: Actor, wanted: ListBlocksRequest, page: Page) -> list[Block]:
        """Return a page of blocks. Raises CursorNotFound."""
        ...

    async def list_of_agent(self, actor: Actor, agent_id: str, page: Page) -> list[Block]:
        """Return a page of an agent's blocks. Raises AgentNotFound, CursorNotFound."""
        ...

    async def count(self, actor: Actor, wanted: CountBlocksRequest) -> int:
        """Return how many blocks there are."""
        ...

    async def update(self, actor: Actor, block: Block, *, expected: int, written: Written) -> bool:
        """Write if the stored version is still `expected`; say whether it was. Raises BlockLabelTaken."""
        ...

    async def delete(self, actor: Actor, block_id: str, etag: str = "") -> None:
        """Remove a block and detach it, if its etag is this one or none is given. Raises BlockNotFound, StaleEtag."""
        ...

    async def list_agent_ids(self, actor: Actor, block_id: str) -> list[str]:
        """Return the ids of the agents that have a block. Raises BlockNotFound."""
        ...


class Blocks:
    """Operations on memory blocks."""

    def __init__(self, store: BlockStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(self, actor: Actor, given: Block, *, request_id: str = "", request_hash: bytes = b"") -> Block:
        """Make a block; a repeat of the request id returns the one made before.

        Raises:
            InvalidArgument: it has no label.
            BlockLimitExceeded: its value is longer than its limit.
            IdempotencyConflict: another request had its key.
        """
        if not given.label:
            raise InvalidArgument("a block needs a label", field="block.label")
        block_id = derived_id("block", actor.organization_id, request_id) if request_id else new_id("block")
        made = new_block(actor, block_id, given, self._clock.now())
        return await self._store.create(actor, made, request_hash=request_hash)

    async def update(self, actor: Actor, block_id: str, given: Block, paths: Collection[str]) -> Block:
        """Give a block the values that another one has at these paths, unless it is older than that one's etag.

        Raises:
            BlockNotFound: the organization has no such block.
            BlockLabelTaken: an agent of the block has another one of the new label.
            StaleEtag: somebody wrote since the etag was read.
            InvalidArgument: the label would be empty.
            BlockLimitExceeded: the value would be longer than the limit.
        """

        async def as_given(_block: Block) -> tuple[Block, Written]:
            return given, Written()

        return await self.rewrite(actor, block_id, given.etag, as_given, paths)

    async def rewrite(
        self,
        actor: Actor,
        block_id: str,
        etag: str,
        make: Callable[[Block], Awaitable[tuple[Block, Written]]],
        paths: Collection[str],
    ) -> Block:
        """Give a block the values at these paths that are made of it, unless it is older than the etag.

        Raises as `update` does, and what `make` raises.
        """
        for _ in range(_ATTEMPTS):
            block = await self._store.get(actor, block_id)
            if etag and etag != block.etag:
                break
            given, how = await make(block)
            written = self._changed(actor, block, given, paths)
            if await self._store.update(actor, written, expected=block.version, written=how):
                return written
            # The caller named a version: another try would overwrite what it has not read.
            if etag:
                break
        raise StaleEtag(f"block {block_id} changed meanwhile; read it again", block_id=block_id)

    async def update_of_agent(
        self, actor: Actor, agent_id: str, label: str, given: Block, paths: Collection[str]
    ) -> Block:
        """Change some fields of an agent's block. Raises as `update` does, and AgentNotFound."""
        block = await self._store.get_of_agent(actor, agent_id, label)
        return await self.update(actor, block.id, given, paths)

    def _changed(self, actor: Actor, block: Block, given: Block, paths: Collection[str]) -> Block:
        changed = Block()
        changed.CopyFrom(block)
        copy_paths(given, changed, paths)
        _complete(changed)
        if not changed.label:
            raise InvalidArgument("a block needs a label", field="block.label")
        # Other fields cannot make the text too long, so they can be changed whatever its length is.
        if {"value", "limit"} & {*paths}:
            _require_fit(changed)
        changed.version = block.version + 1
        changed.etag = str(changed.version)
        changed.last_updated_by_id = actor.user_id
        changed.updated_at.FromDatetime(self._clock.now())
        return changed


def new_block(actor: Actor, block_id: str, given: Block, now: datetime) -> Block:
    """Return a block to store, with what the caller may set. Raises BlockLimitExceeded."""
    made = Block(preserve_on_migration=False)
    copy_paths(given, made, changed_paths(given, _ALL))
    _complete(made)
    _require_fit(made)
    if not made.HasField("description") and made.label in _DESCRIPTIONS:
        made.description = _DESCRIPTIONS[made.label]
    made.id, made.version, made.etag = block_id, 1, "1"
    made.created_by_id = made.last_updated_by_id = actor.user_id
    made.created_at.FromDatetime(now)
    made.updated_at.FromDatetime(now)
    return made


def _complete(block: Block) -> None:
    """Fill in what a block always has."""
    block.limit = block.limit or DEFAULT_LIMIT
    block.metadata = block.metadata or "{}"


def _require_fit(block: Block) -> None:
    """Raise BlockLimitExceeded when a block's value is longer than its limit."""
    if len(block.value) > block.limit:
        raise too_long(block.label, str(len(block.value)), str(block.limit))


def too_long(label: str, length: str, limit: str) -> AppError:
    """Return the error for a value that is longer than the limit of its block, in characters."""
    text = f"the block '{label}' would have {length} characters, its limit is {limit}: shorten it or raise the limit"
    return BlockLimitExceeded(text, label=label, length=length, limit=limit)
