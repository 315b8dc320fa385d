"""How far imports of passages are."""

from alembic import op

revision = "0022"
down_revision = "0021"

TABLE = """
-- Imports of passages, as long as they may go on.
create table memory.passage_imports (
  organization_id text not null,
  archive_id text not null,
  id text not null,
  received bigint not null default 0,
  written bigint not null default 0,
  updated_at timestamptz not null,
  primary key (organization_id, archive_id, id),
  foreign key (organization_id, archive_id) references memory.archives (organization_id, id) on delete cascade
);
comment on column memory.passage_imports.received is 'entries that came, and that the next stream leaves out';
comment on column memory.passage_imports.written is 'those of them that did not stand already';
create index passage_imports_system_age on memory.passage_imports (updated_at);
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(TABLE)
