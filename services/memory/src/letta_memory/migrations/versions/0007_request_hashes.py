"""Blocks, archives and passages know what request made them, so that its key with another body is refused."""

from alembic import op

revision = "0007"
down_revision = "0006"

COLUMNS = """
alter table memory.blocks add column request_hash bytea;
comment on column memory.blocks.request_hash is 'digest of the request that made it, without its key';
alter table memory.archives add column request_hash bytea;
comment on column memory.archives.request_hash is 'digest of the request that made it, without its key';
alter table memory.passages add column request_hash bytea;
comment on column memory.passages.request_hash is 'digest of the request that made it, without its key';
"""


def upgrade() -> None:
    """Add the columns."""
    op.execute(COLUMNS)
