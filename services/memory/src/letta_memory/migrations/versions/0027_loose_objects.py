"""Parts of files whose bytes are objects of a bucket, and objects that belong to no file."""

from alembic import op

revision = "0027"
down_revision = "0026"

TABLE = """
alter table memory.file_parts
  alter column bytes drop not null,
  add column size_bytes integer,
  add column object text,
  add column sha256 bytea;
update memory.file_parts set size_bytes = octet_length(bytes);
alter table memory.file_parts
  alter column size_bytes set not null,
  add check ((bytes is null) <> (object is null));
comment on column memory.file_parts.object is 'key of the object that has the bytes, which then are not here';
comment on column memory.file_parts.sha256 is 'of the object';

-- Objects that are or may come to be in the bucket and belong to no part: noted before they are written, and when
-- parts are removed.
create table memory.loose_objects (
  organization_id text not null,
  object text not null,
  due_at timestamptz not null,
  claimed boolean not null default false,
  primary key (organization_id, object)
);
comment on column memory.loose_objects.due_at is 'when the object is removed, if no part came to have it';
comment on column memory.loose_objects.claimed is 'it is being removed, and can become a part no more';
create index loose_objects_system_due on memory.loose_objects (due_at);
"""


def upgrade() -> None:
    """Make the columns and the table."""
    op.execute(TABLE)
