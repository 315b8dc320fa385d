"""Memory blocks: labelled texts that are always in the context of the agents they are attached to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import AppError, BlockLimitExceeded, InvalidArgument, StaleEtag
from letta_common.values.ids import derived_id, new_id
from letta_common.values.paging import Page

DEFAULT_LIMIT = 100_000
_ATTEMPTS = 5
_DESCRIPTIONS = {
    "human": "What I know about the person I talk with: name, circumstances, preferences. I keep it up to date.",
    "persona": "Who I am: my character, my manner of speaking and my rules of conduct.",
}
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Block:
    """A block. The fields stand in the order of the table's columns."""

    id: str
    label: str
    value: str = ""
    limit: int = DEFAULT_LIMIT
    description: str | None = None
    read_only: bool = False
    metadata: str = "{}"
    tags: tuple[str, ...] = ()
    hidden: bool | None = None
    project_id: str | None = None
    template_name: str | None = None
    is_template: bool = False
    template_id: str | None = None
    base_template_id: str | None = None
    deployment_id: str | None = None
    entity_id: str | None = None
    preserve_on_migration: bool | None = False
    created_by_id: str | None = None
    last_updated_by_id: str | None = None
    version: int = 1
    created_at: datetime = _EPOCH
    updated_at: datetime = _EPOCH


@dataclass(frozen=True, slots=True)
class BlockFilter:
    """Which blocks to list or count. Empty values filter nothing."""

    label: str = ""
    name: str = ""
    tags: tuple[str, ...] = ()
    match_all_tags: bool = False
    templates_only: bool = False
    project_id: str = ""
    label_search: str = ""
    description_search: str = ""
    value_search: str = ""
    agents_over: int | None = None
    agents_under: int | None = None
    agents_equal: tuple[int, ...] = ()


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

    async def list_blocks(self, actor: Actor, wanted: BlockFilter, page: Page) -> list[Block]:
        """Return a page of blocks. Raises CursorNotFound."""
        ...

    async def list_of_agent(self, actor: Actor, agent_id: str, page: Page) -> list[Block]:
        """Return a page of an agent's blocks. Raises AgentNotFound, CursorNotFound."""
        ...

    async def count(self, actor: Actor, wanted: BlockFilter) -> int:
        """Return how many blocks there are."""
        ...

    async def update(self, actor: Actor, block: Block, *, expected: int) -> bool:
        """Write if the stored version is still `expected`; say whether it was. Raises BlockLabelTaken."""
        ...

    async def delete(self, actor: Actor, block_id: str) -> None:
        """Remove a block and detach it. Raises BlockNotFound."""
        ...

    async def list_agent_ids(self, actor: Actor, block_id: str) -> list[str]:
        """Return the ids of the agents that have a block. Raises BlockNotFound."""
        ...


class Blocks:
    """Operations on memory blocks."""

    def __init__(self, store: BlockStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(self, actor: Actor, block: Block, *, request_id: str = "", request_hash: bytes = b"") -> Block:
        """Make a block; a repeat of the request id returns the one made before.

        Raises:
            InvalidArgument: it has no label.
            BlockLimitExceeded: its value is longer than its limit.
            IdempotencyConflict: another request had its key.
        """
        if not block.label:
            raise InvalidArgument("a block needs a label", field="block.label")
        now = self._clock.now()
        made = replace(
            described(fitting(block)),
            id=derived_id("block", actor.organization_id, request_id) if request_id else new_id("block"),
            created_by_id=actor.user_id,
            last_updated_by_id=actor.user_id,
            created_at=now,
            updated_at=now,
        )
        return await self._store.create(actor, made, request_hash=request_hash)

    async def update(self, actor: Actor, block_id: str, changes: Mapping[str, Any], *, etag: str = "") -> Block:
        """Change some fields of a block.

        Raises:
            BlockNotFound: the organization has no such block.
            BlockLabelTaken: an agent of the block has another one of the new label.
            StaleEtag: somebody wrote since the etag was read.
            InvalidArgument: the label would be empty.
            BlockLimitExceeded: the value would be longer than the limit.
        """
        for _ in range(_ATTEMPTS):
            block = await self._store.get(actor, block_id)
            if etag and etag != str(block.version):
                break
            written = self._changed(actor, block, changes)
            if await self._store.update(actor, written, expected=block.version):
                return written
            if etag:
                break
        raise StaleEtag(f"block {block_id} changed meanwhile; read it again", block_id=block_id)

    async def update_of_agent(
        self, actor: Actor, agent_id: str, label: str, changes: Mapping[str, Any], *, etag: str = ""
    ) -> Block:
        """Change some fields of an agent's block. Raises as `update` does, and AgentNotFound."""
        block = await self._store.get_of_agent(actor, agent_id, label)
        return await self.update(actor, block.id, changes, etag=etag)

    def _changed(self, actor: Actor, block: Block, changes: Mapping[str, Any]) -> Block:
        changed = replace(block, **changes)
        if not changed.label:
            raise InvalidArgument("a block needs a label", field="block.label")
        if {"value", "limit"} & changes.keys():
            fitting(changed)
        return replace(
            changed, version=block.version + 1, last_updated_by_id=actor.user_id, updated_at=self._clock.now()
        )


def fitting(block: Block) -> Block:
    """Return the block. Raises BlockLimitExceeded when its value is longer than its limit."""
    if len(block.value) > block.limit:
        raise too_long(block.label, str(len(block.value)), str(block.limit))
    return block


def too_long(label: str, length: str, limit: str) -> AppError:
    """Return the error for a value that is longer than the limit of its block, in characters."""
    text = f"the block '{label}' would have {length} characters, its limit is {limit}: shorten it or raise the limit"
    return BlockLimitExceeded(text, label=label, length=length, limit=limit)


def described(block: Block) -> Block:
    """Return the block, with a description if it has none and its label is a well-known one."""
    if block.description is not None or block.label not in _DESCRIPTIONS:
        return block
    return replace(block, description=_DESCRIPTIONS[block.label])
