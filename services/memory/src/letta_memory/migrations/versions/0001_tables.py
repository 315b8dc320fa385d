"""Tables of memory. Every key begins with organization_id, so that a distributed Postgres can place rows by it."""

from alembic import op

revision = "0001"
down_revision = None

AGENTS = """
create table memory.agents (
  organization_id text not null,
  id text not null,
  name text not null default '',
  created_at timestamptz not null default now(),
  primary key (organization_id, id)
);

-- One row for each conversation: the lock, the fence and the window of what is in context.
-- In context are first_seq, summary_seq and everything from window_seq on that is no summary.
create table memory.conversations (
  organization_id text not null,
  id text not null,
  agent_id text not null,
  fence bigint not null default 0,
  next_seq bigint not null default 1,
  first_seq bigint not null default 1,
  window_seq bigint not null default 1,
  summary_seq bigint,
  message_count bigint not null default 0,
  created_at timestamptz not null default now(),
  primary key (organization_id, id)
) with (fillfactor = 70);
create index conversations_by_agent on memory.conversations (organization_id, agent_id);

-- Steps that were committed, so that a repeat is known. Step -1 says that the run's input was appended.
create table memory.committed_steps (
  organization_id text not null,
  run_id text not null,
  step_index integer not null,
  conversation_id text not null,
  stop_reason smallint not null default 0,
  created_at timestamptz not null default now(),
  primary key (organization_id, run_id, step_index)
);
"""

MESSAGES = """
create table memory.messages (
  organization_id text not null,
  conversation_id text not null,
  seq bigint not null,
  id text not null,
  agent_id text not null,
  role smallint not null,
  types integer not null,
  flags smallint not null default 0,
  run_id text,
  step_id text,
  group_id text,
  created_at timestamptz not null,
  format smallint not null default 1,
  pending boolean not null default false,
  search text not null default '',
  words tsvector generated always as (to_tsvector('pg_catalog.english'::regconfig, search)) stored,
  embedding extensions.halfvec,
  embedder text,
  body bytea not null,
  primary key (organization_id, conversation_id, seq)
);
create unique index messages_by_id on memory.messages (organization_id, id);
create index messages_by_run on memory.messages (organization_id, run_id, seq) where run_id is not null;
create index messages_by_time on memory.messages (organization_id, created_at, id);
create index messages_by_word on memory.messages using gin (organization_id, words);
create index messages_pending on memory.messages (organization_id, conversation_id, seq) where pending;
"""

BLOCKS = """
create table memory.blocks (
  organization_id text not null,
  id text not null,
  label text not null,
  value text not null,
  char_limit integer not null,
  description text,
  read_only boolean not null default false,
  metadata text not null default '{}',
  tags text[] not null default '{}',
  hidden boolean,
  project_id text,
  template_name text,
  is_template boolean not null default false,
  template_id text,
  base_template_id text,
  deployment_id text,
  entity_id text,
  preserve_on_migration boolean,
  created_by_id text,
  last_updated_by_id text,
  version bigint not null default 1,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (organization_id, id)
);
create index blocks_by_time on memory.blocks (organization_id, created_at, id);
create index blocks_by_label on memory.blocks (organization_id, label);

-- Each write of a block. An edit by a run has its key here, in the statement that makes the edit.
create table memory.block_history (
  organization_id text not null,
  block_id text not null,
  version bigint not null,
  label text not null,
  value text not null,
  description text,
  edit_key text,
  edit_hash bytea,
  fence bigint,
  conversation_id text,
  written_by_id text,
  created_at timestamptz not null,
  primary key (organization_id, block_id, version)
);
create unique index block_history_by_key on memory.block_history (organization_id, edit_key) where edit_key is not null;

create table memory.agent_blocks (
  organization_id text not null,
  agent_id text not null,
  block_id text not null,
  label text not null,
  primary key (organization_id, agent_id, block_id),
  foreign key (organization_id, block_id) references memory.blocks (organization_id, id) on delete cascade
);
create unique index agent_blocks_by_label on memory.agent_blocks (organization_id, agent_id, label);
create index agent_blocks_by_block on memory.agent_blocks (organization_id, block_id);

-- Blocks that a conversation has in place of the agent's of the same label.
create table memory.conversation_blocks (
  organization_id text not null,
  conversation_id text not null,
  block_id text not null,
  label text not null,
  primary key (organization_id, conversation_id, label),
  foreign key (organization_id, block_id) references memory.blocks (organization_id, id) on delete cascade
);
create index conversation_blocks_by_block on memory.conversation_blocks (organization_id, block_id);
"""

ARCHIVES = """
create table memory.archives (
  organization_id text not null,
  id text not null,
  name text not null,
  description text,
  embedder text not null default '',
  dimensions integer,
  metadata text not null default '',
  owner_agent_id text,
  passage_count bigint not null default 0,
  created_by_id text,
  last_updated_by_id text,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (organization_id, id)
) with (fillfactor = 70);
create index archives_by_time on memory.archives (organization_id, created_at, id);
create unique index archives_by_owner on memory.archives (organization_id, owner_agent_id)
  where owner_agent_id is not null;

create table memory.archive_agents (
  organization_id text not null,
  agent_id text not null,
  archive_id text not null,
  primary key (organization_id, agent_id),
  foreign key (organization_id, archive_id) references memory.archives (organization_id, id) on delete cascade
);
create index archive_agents_by_archive on memory.archive_agents (organization_id, archive_id);

create table memory.passages (
  organization_id text not null,
  archive_id text not null,
  id text not null,
  text text not null,
  tags text[],
  metadata text not null default '{}',
  created_by_id text,
  last_updated_by_id text,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  pending boolean not null default false,
  embedding extensions.halfvec storage main,
  embedder text not null default '',
  words tsvector generated always as (to_tsvector('pg_catalog.english'::regconfig, text)) stored,
  primary key (organization_id, archive_id, id),
  foreign key (organization_id, archive_id) references memory.archives (organization_id, id) on delete cascade
);
create unique index passages_by_id on memory.passages (organization_id, id);
create index passages_by_time on memory.passages (organization_id, archive_id, created_at, id);
create index passages_by_word on memory.passages using gin (organization_id, archive_id, words);
create index passages_pending on memory.passages (organization_id, archive_id, id) where pending;

-- Where deleted rows stood in their lists, so that a cursor on one still works.
create table memory.tombstones (
  organization_id text not null,
  id text not null,
  created_at timestamptz not null,
  seq bigint not null default 0,
  deleted_at timestamptz not null default now(),
  primary key (organization_id, id)
);
"""


def upgrade() -> None:
    """Make the tables."""
    for statements in (AGENTS, MESSAGES, BLOCKS, ARCHIVES):
        op.execute(statements)
