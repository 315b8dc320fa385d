"""Memory blocks: labelled texts that are always in the context of the agents they are attached to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

DEFAULT_LIMIT = 100_000
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
