"""The tables as SQLAlchemy Core sees them: what lists and filters need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from letta_postgres.db import HalfVec
from letta_postgres.keyset import Keyset

METADATA = sa.MetaData(schema="memory")
_TIME = sa.DateTime(timezone=True)


def _texts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text) for name in names]


blocks = sa.Table(
    "blocks",
    METADATA,
    *_texts("organization_id", "id", "label", "value"),
    sa.Column("char_limit", sa.Integer),
    sa.Column("description", sa.Text),
    sa.Column("read_only", sa.Boolean),
    sa.Column("metadata", sa.Text),
    sa.Column("tags", ARRAY(sa.Text)),
    sa.Column("hidden", sa.Boolean),
    *_texts("project_id", "template_name"),
    sa.Column("is_template", sa.Boolean),
    *_texts("template_id", "base_template_id", "deployment_id", "entity_id"),
    sa.Column("preserve_on_migration", sa.Boolean),
    *_texts("created_by_id", "last_updated_by_id"),
    sa.Column("version", sa.BigInteger),
    sa.Column("created_at", _TIME),
    sa.Column("updated_at", _TIME),
    sa.Column("request_hash", sa.LargeBinary),
)
block_history = sa.Table(
    "block_history",
    METADATA,
    *_texts("organization_id", "block_id"),
    sa.Column("version", sa.BigInteger),
    *_texts("label", "value", "description", "edit_key", "agent_id", "conversation_id", "written_by_id"),
    sa.Column("kind", sa.SmallInteger),
    sa.Column("restored_version", sa.BigInteger),
    sa.Column("created_at", _TIME),
    sa.Column("suggestion_id", sa.Text),
)
agent_blocks = sa.Table("agent_blocks", METADATA, *_texts("organization_id", "agent_id", "block_id", "label"))
agents = sa.Table(
    "agents",
    METADATA,
    *_texts("organization_id", "id", "name"),
    sa.Column("suggest_corrections", sa.Boolean),
    sa.Column("most_open", sa.Integer),
)
archives = sa.Table(
    "archives",
    METADATA,
    *_texts("organization_id", "id", "name", "description", "embedder"),
    sa.Column("dimensions", sa.Integer),
    *_texts("metadata", "owner_agent_id"),
    sa.Column("passage_count", sa.BigInteger),
    sa.Column("of_folder", sa.Boolean),
    sa.Column("max_age", sa.Interval),
    sa.Column("max_passages", sa.BigInteger),
    sa.Column("unused_after", sa.Interval),
    sa.Column("uses_since", _TIME),
    sa.Column("deduplication", sa.SmallInteger),
    sa.Column("former_embedders", ARRAY(sa.Text)),
    sa.Column("failure", sa.Text),
    sa.Column("suggest_duplicates", sa.Boolean),
    sa.Column("most_open", sa.Integer),
    sa.Column("review_due", sa.Boolean),
    *_texts("created_by_id", "last_updated_by_id"),
    sa.Column("created_at", _TIME),
    sa.Column("updated_at", _TIME),
    sa.Column("request_hash", sa.LargeBinary),
)
archive_agents = sa.Table("archive_agents", METADATA, *_texts("organization_id", "agent_id", "archive_id"))
passages = sa.Table(
    "passages",
    METADATA,
    *_texts("organization_id", "archive_id", "id", "text"),
    sa.Column("tags", ARRAY(sa.Text)),
    *_texts("metadata", "created_by_id", "last_updated_by_id"),
    sa.Column("created_at", _TIME),
    sa.Column("updated_at", _TIME),
    sa.Column("pending", sa.Boolean),
    *_texts("embedder", "file_id", "origin_agent_id", "origin_conversation_id", "origin_run_id", "origin_message_id"),
    *_texts("origin_tool_call_id", "origin_tool_name", "origin_file_id"),
    sa.Column("scope", sa.Integer),
    sa.Column("place", sa.Integer),
)
folders = sa.Table(
    "folders",
    METADATA,
    *_texts("organization_id", "id", "name", "description", "instructions", "metadata"),
    sa.Column("chunk_size", sa.Integer),
    *_texts("created_by_id", "last_updated_by_id"),
    sa.Column("created_at", _TIME),
    sa.Column("updated_at", _TIME),
    sa.Column("deleted_at", _TIME),
    sa.Column("request_hash", sa.LargeBinary),
)
folder_agents = sa.Table(
    "folder_agents",
    METADATA,
    *_texts("organization_id", "agent_id", "folder_id"),
    sa.Column("attached_at", _TIME),
)
files = sa.Table(
    "files",
    METADATA,
    *_texts("organization_id", "folder_id", "id", "name", "original_name", "media_type"),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("sha256", sa.LargeBinary),
    sa.Column("status", sa.SmallInteger),
    sa.Column("error", sa.Text),
    sa.Column("chunk_count", sa.Integer),
    sa.Column("text_bytes", sa.BigInteger),
    sa.Column("created_by_id", sa.Text),
    sa.Column("created_at", _TIME),
    sa.Column("updated_at", _TIME),
    sa.Column("deleted_at", _TIME),
)
file_texts = sa.Table(
    "file_texts",
    METADATA,
    *_texts("organization_id", "file_id"),
    sa.Column("number", sa.Integer),
    sa.Column("first_line", sa.Integer),
    sa.Column("text", sa.Text),
)
search_texts = sa.Table(
    "search_texts",
    METADATA,
    *_texts("organization_id"),
    sa.Column("scope", sa.Integer),
    sa.Column("place", sa.Integer),
    sa.Column("embedding", HalfVec()),
)
conversations = sa.Table("conversations", METADATA, *_texts("organization_id", "id", "agent_id"))
messages = sa.Table(
    "messages",
    METADATA,
    *_texts("organization_id", "conversation_id"),
    sa.Column("seq", sa.BigInteger),
    *_texts("id", "agent_id"),
    sa.Column("types", sa.Integer),
    sa.Column("flags", sa.SmallInteger),
    *_texts("run_id", "step_id", "group_id"),
    sa.Column("created_at", _TIME),
    sa.Column("body", sa.LargeBinary),
)
identities = sa.Table(
    "identities",
    METADATA,
    *_texts("organization_id", "id", "identifier_key", "name"),
    sa.Column("identity_type", sa.SmallInteger),
    sa.Column("project_id", sa.Text),
    sa.Column("properties", sa.LargeBinary),
    *_texts("created_by_id", "last_updated_by_id"),
    sa.Column("created_at", _TIME),
    sa.Column("updated_at", _TIME),
    sa.Column("request_hash", sa.LargeBinary),
)
identity_agents = sa.Table("identity_agents", METADATA, *_texts("organization_id", "identity_id", "agent_id"))
identity_blocks = sa.Table("identity_blocks", METADATA, *_texts("organization_id", "identity_id", "block_id"))
suggestions = sa.Table(
    "suggestions",
    METADATA,
    *_texts("organization_id", "id"),
    sa.Column("kind", sa.SmallInteger),
    sa.Column("state", sa.SmallInteger),
    *_texts("archive_id", "agent_id", "block_id"),
    sa.Column("passage_ids", ARRAY(sa.Text)),
    sa.Column("passage_texts", ARRAY(sa.Text)),
    sa.Column("passage_times", ARRAY(_TIME)),
    sa.Column("same_text", sa.Boolean),
    sa.Column("word_overlap", sa.Double),
    sa.Column("similarity", sa.Double),
    sa.Column("block_version", sa.BigInteger),
    sa.Column("line_number", sa.Integer),
    *_texts("line", "replacement", "relation"),
    sa.Column("message_ids", ARRAY(sa.Text)),
    sa.Column("message_text", sa.Text),
    *(sa.Column(name, _TIME) for name in ("created_at", "decided_at")),
    sa.Column("decided_by_id", sa.Text),
)
tombstones = sa.Table(
    "tombstones",
    METADATA,
    *_texts("organization_id", "id"),
    sa.Column("created_at", _TIME),
    sa.Column("seq", sa.BigInteger),
)


@dataclass(frozen=True, slots=True)
class ListKeyset(Keyset):
    """A keyset that also finds the place of a row that was deleted."""

    gone_at: sa.ColumnElement[Any] = field(kw_only=True)
    organization_id: str = field(kw_only=True)

    def find(self, cursor: str) -> sa.Select[Any]:
        """Return the query of a cursor's position."""
        mine = tombstones.c.organization_id == self.organization_id
        lost = sa.select(self.gone_at).where(mine, tombstones.c.id == cursor)
        both = sa.union_all(Keyset.find(self, cursor), lost).subquery()
        return sa.select(both.c[0]).limit(1)


def keyset(
    table: sa.Table,
    at: str,
    organization_id: str,
    scope: sa.ColumnElement[bool],
    *large: sa.ColumnElement[Any],
) -> ListKeyset:
    """Return what pages a list of a table's rows by this column and the id; `large` are the columns with big values."""
    return ListKeyset(
        at=table.c[at],
        id=table.c.id,
        scope=scope,
        large=large,
        gone_at=tombstones.c[at],
        organization_id=organization_id,
    )
