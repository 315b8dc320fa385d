"""Who wrote a revision of a block and how, and the order of all writes."""

from alembic import op

revision = "0013"
down_revision = "0012"

REVISIONS = """
alter table memory.block_history
  add column kind smallint not null default 1,
  add column agent_id text,
  add column restored_version bigint,
  add column written_in xid8 not null default pg_current_xact_id();
comment on column memory.block_history.kind is 'number of letta.memory.v1.BlockWrite';
comment on column memory.block_history.restored_version is 'the version whose content it has';
comment on column memory.block_history.written_in is 'the transaction, which orders the writes of all blocks';
update memory.block_history set kind = 0 where edit_key is not null;
create index block_history_in_order
  on memory.block_history (organization_id, written_in, block_id collate "C", version);
"""


def upgrade() -> None:
    """Add the columns; edits by tools of before do not tell their kind."""
    op.execute(REVISIONS)
