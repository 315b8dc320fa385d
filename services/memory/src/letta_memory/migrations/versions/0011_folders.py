"""Folders and their files: bytes and text in rows of bounded size, chunks as passages of an archive of their own."""

from alembic import op

revision = "0011"
down_revision = "0010"

FOLDERS = """
create table memory.folders (
  organization_id text not null,
  id text not null,
  name text not null,
  description text,
  instructions text,
  metadata text not null default '',
  chunk_size integer not null,
  created_by_id text,
  last_updated_by_id text,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  deleted_at timestamptz,
  request_hash bytea,
  primary key (organization_id, id)
);
comment on column memory.folders.chunk_size is 'longest chunk, in tokens of four characters';
comment on column memory.folders.deleted_at is 'nobody sees it any more; what it holds is removed in the background';
create unique index folders_by_name on memory.folders (organization_id, name) where deleted_at is null;
create index folders_by_time on memory.folders (organization_id, created_at, id);
create index folders_system_deleted on memory.folders (deleted_at) where deleted_at is not null;

create table memory.folder_agents (
  organization_id text not null,
  agent_id text not null,
  folder_id text not null,
  attached_at timestamptz not null default now(),
  primary key (organization_id, agent_id, folder_id),
  foreign key (organization_id, folder_id) references memory.folders (organization_id, id) on delete cascade
);
create index folder_agents_by_folder on memory.folder_agents (organization_id, folder_id, attached_at, agent_id);

alter table memory.archives add column of_folder boolean not null default false;
comment on column memory.archives.of_folder is 'its id is that of a folder, whose chunks it holds';
"""

FILES = """
create table memory.files (
  organization_id text not null,
  folder_id text not null,
  id text not null,
  name text not null,
  original_name text not null,
  media_type text not null,
  size_bytes bigint not null default 0,
  sha256 bytea,
  status smallint not null default 0,
  error text not null default '',
  chunk_count integer,
  text_bytes bigint not null default 0,
  attempts smallint not null default 0,
  lease_id text not null default '',
  lease_until timestamptz,
  created_by_id text,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  deleted_at timestamptz,
  request_hash bytea,
  primary key (organization_id, id),
  foreign key (organization_id, folder_id) references memory.folders (organization_id, id)
) with (fillfactor = 70);
comment on column memory.files.status is 'a FileStatus; 0: its bytes still come, and size_bytes says how many did';
comment on column memory.files.attempts is 'how often it was begun to be read since that last succeeded or failed';
comment on column memory.files.lease_id is 'who reads it, until lease_until';
create unique index files_by_name on memory.files (organization_id, folder_id, name)
  where deleted_at is null and status > 0;
create index files_by_time on memory.files (organization_id, folder_id, created_at, id);
create index files_system_waiting on memory.files (organization_id, id) where status in (1, 2) and deleted_at is null;
create index files_system_uploads on memory.files (updated_at) where status = 0 and deleted_at is null;
create index files_system_deleted on memory.files (deleted_at) where deleted_at is not null;

-- The bytes as they came, 262,144 in each row but the last.
create table memory.file_parts (
  organization_id text not null,
  file_id text not null,
  number integer not null,
  bytes bytea storage external not null,
  primary key (organization_id, file_id, number)
);

-- The text that was read from the bytes. Rows in order are the whole; first_line counts the lines before, from 0.
create table memory.file_texts (
  organization_id text not null,
  file_id text not null,
  number integer not null,
  first_line integer not null,
  text text not null,
  primary key (organization_id, file_id, number)
);
"""

CHUNKS = """
alter table memory.passages
  add column file_id text,
  add column file_place integer;
comment on column memory.passages.file_place is 'place among the chunks of its file, from 0';
create index passages_by_file on memory.passages (organization_id, file_id, file_place) where file_id is not null;
create index passages_pending_by_file on memory.passages (organization_id, file_id)
  where pending and file_id is not null;
"""


def upgrade() -> None:
    """Make the tables."""
    for statements in (FOLDERS, FILES, CHUNKS):
        op.execute(statements)
