"""Rows of the hot statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from letta.memory.v1.block_pb2 import Block
from letta.memory.v1.context_service_pb2 import AgentMemory
from letta_common.values.times import time_of

HEAD_COLUMNS = (
    "r.status, r.fence, r.repeated, r.message_count, r.passage_count, r.last_step, r.last_stop, r.notes, r.messages, "
    "r.directories_version"
)
HEAD_WIDTH = 10  # columns of HEAD_COLUMNS; those of a block follow
DIRECTORIES = 9
"""Place of the directories' version in them; null where the agent has no folders."""
BLOCK_COLUMNS = (
    "id, label, value, char_limit, description, read_only, metadata, tags, hidden, project_id, template_name, "
    "is_template, template_id, base_template_id, deployment_id, entity_id, preserve_on_migration, created_by_id, "
    "last_updated_by_id, version, created_at, updated_at"
)
STEP_ROW = f"select {HEAD_COLUMNS}, {', '.join(f'(r.block).{name}' for name in BLOCK_COLUMNS.split(', '))} from"
MEMORY_ROW = (
    f"select r.agent_id, r.message_ids, {', '.join(f'(r.block).{name}' for name in BLOCK_COLUMNS.split(', '))} from"
)

_LABEL = 3
"""Place of a block's label in the rows of what agents keep."""
_COLUMNS = BLOCK_COLUMNS.split(", ")
_FIELDS = [Block.DESCRIPTOR.fields_by_name["limit" if name == "char_limit" else name] for name in _COLUMNS]
_NAMES = [field.name for field in _FIELDS]


def block_of(row: Sequence[Any]) -> Block:
    """Build a block from its columns, in the order of BLOCK_COLUMNS."""
    values = dict(zip(_NAMES, row, strict=True))
    return Block(etag=str(values["version"]), **values)


def block_values(block: Block) -> dict[str, Any]:
    """Return the values of a block's columns."""
    given = {field.name for field, _ in block.ListFields()}
    values = {
        name: getattr(block, field.name) if not field.has_presence or field.name in given else None
        for name, field in zip(_COLUMNS, _FIELDS, strict=True)
    }
    return {
        **values,
        "tags": list(block.tags),
        "created_at": time_of(block.created_at),
        "updated_at": time_of(block.updated_at),
    }


def blocks_of(rows: Sequence[Sequence[Any]]) -> list[Block]:
    """Build the blocks that follow the first row of a hot statement."""
    return [block_of(row[HEAD_WIDTH:]) for row in rows[1:]]


def memories_of(rows: Sequence[Sequence[Any]]) -> dict[str, AgentMemory]:
    """Build what agents keep, by agent: a row of each with its messages, and a row of each block."""
    found = {row[0]: AgentMemory(agent_id=row[0], message_ids=row[1]) for row in rows if row[1] is not None}
    for row in sorted((row for row in rows if row[1] is None and row[0] in found), key=lambda row: row[_LABEL]):
        found[row[0]].blocks.append(block_of(row[2:]))
    return found
