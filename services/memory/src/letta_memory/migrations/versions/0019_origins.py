"""Where passages came from, and removing all of one origin."""

from alembic import op

revision = "0019"
down_revision = "0018"

ORIGINS = """
drop function if exists memory.write_passages;
alter table memory.passages
  add column origin_agent_id text,
  add column origin_conversation_id text,
  add column origin_run_id text,
  add column origin_message_id text,
  add column origin_tool_call_id text,
  add column origin_tool_name text,
  add column origin_file_id text;
comment on column memory.passages.origin_file_id is 'the file it was taken from; a chunk has its file in file_id';
create index passages_by_origin_agent on memory.passages (organization_id, origin_agent_id)
  where origin_agent_id is not null;
create index passages_by_origin_conversation on memory.passages (organization_id, origin_conversation_id)
  where origin_conversation_id is not null;
create index passages_by_origin_run on memory.passages (organization_id, origin_run_id) where origin_run_id is not null;
create index passages_by_origin_message on memory.passages (organization_id, origin_message_id)
  where origin_message_id is not null;
create index passages_by_origin_call on memory.passages (organization_id, origin_tool_call_id)
  where origin_tool_call_id is not null;
create index passages_by_origin_file on memory.passages (organization_id, origin_file_id)
  where origin_file_id is not null;
"""

PURGES = """
create type memory.passage_filter as (
  agent_id text, conversation_id text, run_id text, message_id text, tool_call_id text, tool_name text, file_id text,
  tags text[], all_tags boolean, since timestamptz, before timestamptz);

-- Removals of passages, until a repeat of their key need not be known any more.
create table memory.passage_purges (
  organization_id text not null,
  id text not null,
  archive_id text,
  filter memory.passage_filter not null,
  request_hash bytea,
  removed bigint not null default 0,
  started_at timestamptz not null,
  ended_at timestamptz,
  primary key (organization_id, id)
);
comment on column memory.passage_purges.started_at is 'what was written later stays';
create index passage_purges_system_waiting on memory.passage_purges (started_at) where ended_at is null;
create index passage_purges_system_age on memory.passage_purges (ended_at) where ended_at is not null;
"""


def upgrade() -> None:
    """Make the columns and the table; passages of before say nothing of where they came from."""
    for statements in (ORIGINS, PURGES):
        op.execute(statements)
