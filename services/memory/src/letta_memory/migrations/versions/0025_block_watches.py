"""Whose blocks are watched, so that nobody is woken for nothing."""

from alembic import op

revision = "0025"
down_revision = "0024"

TABLE = """
-- Organizations whose blocks are watched, on whichever replica.
create table memory.block_watches (
  organization_id text primary key,
  until timestamptz not null
);
comment on column memory.block_watches.until is 'when it ends unless it is renewed';
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(TABLE)
