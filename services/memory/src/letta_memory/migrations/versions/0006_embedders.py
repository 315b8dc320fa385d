"""Embedders of agents and archives can change: passages know the generation of vectors that they belong to."""

from alembic import op

revision = "0006"
down_revision = "0005"

COLUMNS = """
alter table memory.agents add column embedder text not null default '';
comment on column memory.agents.embedder is 'what embeds the archive that the first passage makes; empty: the default';

alter table memory.archives
  add column generation integer not null default 0,
  add column waiting_since timestamptz,
  add column tried_at timestamptz,
  add column failure_reason text not null default '',
  add column failure text not null default '';
comment on column memory.archives.generation is 'raised when all passages shall be embedded anew';
comment on column memory.archives.waiting_since is 'passages wait to be embedded; set anew by each that comes';

alter table memory.passages add column generation integer not null default 0;
update memory.archives a set waiting_since = now() where exists (
  select from memory.passages p where p.organization_id = a.organization_id and p.archive_id = a.id and p.pending);
create index archives_system_waiting on memory.archives (tried_at nulls first) where waiting_since is not null;
create index passages_by_generation on memory.passages (organization_id, archive_id, generation);
"""


def upgrade() -> None:
    """Add the columns."""
    op.execute(COLUMNS)
