"""How many bytes of files each organization stores."""

from alembic import op

revision = "0026"
down_revision = "0025"

TABLE = """
create table memory.stored_files (
  organization_id text not null primary key,
  size_bytes bigint not null
);
comment on column memory.stored_files.size_bytes is 'bytes in file_parts, those of uploads and of deleted files too';
insert into memory.stored_files (organization_id, size_bytes)
select t.organization_id, sum(octet_length(t.bytes)) from memory.file_parts t group by t.organization_id;
"""


def upgrade() -> None:
    """Make the table, and count what there is."""
    op.execute(TABLE)
