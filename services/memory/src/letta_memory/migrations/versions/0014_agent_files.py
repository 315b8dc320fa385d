"""What agents see of files: which are open, which lines of them, and how much of it."""

from alembic import op

revision = "0014"
down_revision = "0013"

COLUMNS = """
alter table memory.agents
  add column max_files_open integer not null default 10,
  add column view_char_limit integer not null default 25000,
  add column directories_version bigint not null default 0;
comment on column memory.agents.directories_version is 'raised by any change of what the agent sees of folders';

alter table memory.conversations add column has_folders boolean not null default false;
comment on column memory.conversations.has_folders is 'the agent has folders: only then is more read of them';

alter type memory.step_row add attribute directories_version bigint;
"""

TABLES = """
-- Files that an agent has opened at some time. All others of its folders are closed.
create table memory.agent_files (
  organization_id text not null,
  agent_id text not null,
  folder_id text not null,
  file_id text not null,
  is_open boolean not null,
  start_line integer not null default 0,
  end_line integer,
  last_accessed_at timestamptz not null,
  primary key (organization_id, agent_id, file_id),
  foreign key (organization_id, agent_id, folder_id)
    references memory.folder_agents (organization_id, agent_id, folder_id) on delete cascade,
  foreign key (organization_id, file_id) references memory.files (organization_id, id) on delete cascade
);
comment on column memory.agent_files.start_line is 'lines before the first one that is shown';
comment on column memory.agent_files.end_line is 'lines up to the last one that is shown; null: all';
create index agent_files_by_folder on memory.agent_files (organization_id, agent_id, folder_id);
create index agent_files_by_file on memory.agent_files (organization_id, file_id);

-- Answers to calls of runs that opened files, so that a repeat is known.
create table memory.file_openings (
  organization_id text not null,
  key text not null,
  request_hash bytea not null,
  answer bytea not null,
  created_at timestamptz not null default now(),
  primary key (organization_id, key)
);
create index file_openings_system_age on memory.file_openings (created_at);
"""


def upgrade() -> None:
    """Make the columns and the tables."""
    for statements in (COLUMNS, TABLES):
        op.execute(statements)
