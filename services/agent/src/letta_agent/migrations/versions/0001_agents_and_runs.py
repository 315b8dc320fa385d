"""Agents, conversations, runs, their steps and events."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = r"""
create table agent.agents (
  organization_id text not null,
  id text not null,
  name text not null,
  agent_type smallint not null,
  tags text[] not null default '{}',
  identity_ids text[] not null default '{}',
  project_id text,
  template_id text,
  base_template_id text,
  created_by_id text,
  hidden boolean not null default false,
  state smallint not null default 0,
  version bigint not null default 1,
  request_id text,
  definition bytea not null,
  creation bytea,
  secrets bytea not null default '',
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  primary key (organization_id, id)
);
comment on column agent.agents.state is '0 being made, 1 ready, 2 being removed';
comment on column agent.agents.creation is 'what is left to do to make it, until it is made';
create unique index agents_request_id on agent.agents (organization_id, request_id) where request_id is not null;
create index agents_created_at on agent.agents (organization_id, created_at, id);
create index agents_updated_at on agent.agents (organization_id, updated_at, id);
create index agents_tags on agent.agents using gin (organization_id extensions.text_ops, tags);

create table agent.agent_tools (
  organization_id text not null,
  agent_id text not null,
  tool_id text not null,
  attached_at timestamptz not null default clock_timestamp(),
  position integer not null default 0,
  primary key (organization_id, agent_id, tool_id),
  foreign key (organization_id, agent_id) references agent.agents (organization_id, id) on delete cascade
);

create table agent.conversations (
  organization_id text not null,
  id text not null,
  agent_id text not null,
  summary text,
  definition bytea not null,
  isolated_block_ids text[] not null default '{}',
  isolated_labels text[] not null default '{}',
  request_id text,
  state smallint not null default 0,
  created_by_id text,
  last_updated_by_id text,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  primary key (organization_id, id),
  foreign key (organization_id, agent_id) references agent.agents (organization_id, id) on delete cascade
);
create unique index conversations_request_id on agent.conversations (organization_id, request_id)
  where request_id is not null;
create index conversations_agent on agent.conversations (organization_id, agent_id, created_at, id);

create table agent.conversation_queue (
  organization_id text not null,
  conversation_id text not null,
  agent_id text not null,
  run_id text,
  owner text,
  fence bigint not null default 0,
  lease_until timestamptz,
  pending integer not null default 0,
  context_tokens integer not null default 0,
  approval_message_id text,
  approval_call_ids text[],
  approval_message bytea,
  last_run_completion timestamptz,
  last_run_duration_ms integer,
  last_stop_reason smallint not null default 0,
  last_message_at timestamptz,
  primary key (organization_id, conversation_id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
create index conversation_queue_agent on agent.conversation_queue (organization_id, agent_id);
create index conversation_queue_system_due on agent.conversation_queue (lease_until nulls first)
  where run_id is not null or pending > 0;

create table agent.runs (
  organization_id text not null,
  id text not null,
  agent_id text not null,
  conversation_id text not null,
  idempotency_key text,
  request_hash bytea not null,
  status smallint not null,
  stop_reason smallint not null default 0,
  background boolean not null default false,
  run_type text not null,
  user_id text not null,
  scopes text[] not null,
  request bytea not null,
  input bytea not null,
  error text not null default '',
  claims integer not null default 0,
  cancel_requested boolean not null default false,
  step_count integer not null default 0,
  prompt_tokens integer not null default 0,
  completion_tokens integer not null default 0,
  cached_input_tokens integer not null default 0,
  cache_write_tokens integer not null default 0,
  reasoning_tokens integer not null default 0,
  context_tokens integer not null default 0,
  ttft_ns bigint not null default 0,
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  completed_at timestamptz,
  primary key (organization_id, id)
) with (fillfactor = 80);
create unique index runs_idempotency_key on agent.runs (organization_id, conversation_id, idempotency_key)
  where idempotency_key is not null;
create index runs_created_at on agent.runs (organization_id, created_at, id);
create index runs_agent on agent.runs (organization_id, agent_id, created_at, id);
create index runs_waiting on agent.runs (organization_id, conversation_id, created_at, id) where status = 1;

create table agent.run_steps (
  organization_id text not null,
  run_id text not null,
  step_index integer not null,
  id text not null,
  agent_id text not null,
  fence bigint not null,
  output bytea,
  model text not null default '',
  provider_type text not null default '',
  context_window integer not null default 0,
  prompt_tokens integer not null default 0,
  completion_tokens integer not null default 0,
  cached_input_tokens integer not null default 0,
  cache_write_tokens integer not null default 0,
  reasoning_tokens integer not null default 0,
  stop_reason smallint not null default 0,
  status smallint not null default 1,
  error_type text not null default '',
  started_ns bigint not null default 0,
  step_ns bigint not null default 0,
  llm_started_ns bigint not null default 0,
  llm_ns bigint not null default 0,
  tool_ns bigint not null default 0,
  tools_used text[] not null default '{}',
  feedback smallint not null default 0,
  tags text[] not null default '{}',
  created_at timestamptz not null default clock_timestamp(),
  primary key (organization_id, run_id, step_index)
);
create unique index run_steps_id on agent.run_steps (organization_id, id);
create index run_steps_created_at on agent.run_steps (organization_id, created_at, id);
create index run_steps_agent on agent.run_steps (organization_id, agent_id, created_at, id);

create table agent.run_events (
  organization_id text not null,
  run_id text not null,
  seq_id bigint not null,
  event bytea not null,
  created_at timestamptz not null default clock_timestamp(),
  primary key (organization_id, run_id, seq_id)
);
create index run_events_system_age on agent.run_events using brin (created_at);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)
