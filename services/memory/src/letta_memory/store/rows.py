"""Rows of the hot statements."""

from __future__ import annotations

from typing import Any

from letta_memory.domain.blocks import Block

HEAD_COLUMNS = (
    "r.status, r.fence, r.repeated, r.message_count, r.passage_count, r.last_step, r.last_stop, r.notes, r.messages"
)
HEAD_WIDTH = 9
BLOCK_COLUMNS = (
    "id, label, value, char_limit, description, read_only, metadata, tags, hidden, project_id, template_name, "
    "is_template, template_id, base_template_id, deployment_id, entity_id, preserve_on_migration, created_by_id, "
    "last_updated_by_id, version, created_at, updated_at"
)
STEP_ROW = f"select {HEAD_COLUMNS}, {', '.join(f'(r.block).{name}' for name in BLOCK_COLUMNS.split(', '))} from"


def block_of(row: tuple[Any, ...]) -> Block:
    """Build a block from its columns, in the order of BLOCK_COLUMNS."""
    values = (*row[:7], tuple(row[7]), *row[8:])
    return Block(*values)


def blocks_of(rows: list[tuple[Any, ...]]) -> tuple[Block, ...]:
    """Build the blocks that follow the first row of a hot statement."""
    return tuple(block_of(row[HEAD_WIDTH:]) for row in rows[1:])
