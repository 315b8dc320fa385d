"""Identities, and which agents and blocks belong to them."""

from alembic import op

revision = "0023"
down_revision = "0022"

TABLES = """
create table memory.identities (
  organization_id text not null,
  id text not null,
  identifier_key text not null,
  name text not null,
  identity_type smallint not null,
  project_id text not null default '',
  properties bytea not null default '',
  created_by_id text,
  last_updated_by_id text,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  request_hash bytea,
  primary key (organization_id, id)
);
comment on column memory.identities.identity_type is 'an IdentityType';
comment on column memory.identities.project_id is 'empty: none, so that a key is unique among those without one';
comment on column memory.identities.properties is 'an Identity that has nothing else';
create unique index identities_by_key on memory.identities (organization_id, identifier_key, project_id);
create index identities_by_time on memory.identities (organization_id, created_at, id);

create table memory.identity_agents (
  organization_id text not null,
  identity_id text not null,
  agent_id text not null,
  primary key (organization_id, identity_id, agent_id),
  foreign key (organization_id, identity_id) references memory.identities (organization_id, id) on delete cascade,
  foreign key (organization_id, agent_id) references memory.agents (organization_id, id) on delete cascade
);
create index identity_agents_by_agent on memory.identity_agents (organization_id, agent_id);

create table memory.identity_blocks (
  organization_id text not null,
  identity_id text not null,
  block_id text not null,
  primary key (organization_id, identity_id, block_id),
  foreign key (organization_id, identity_id) references memory.identities (organization_id, id) on delete cascade,
  foreign key (organization_id, block_id) references memory.blocks (organization_id, id) on delete cascade
);
create index identity_blocks_by_block on memory.identity_blocks (organization_id, block_id);
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(TABLES)
