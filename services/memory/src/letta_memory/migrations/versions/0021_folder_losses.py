"""Agents that lost their last folder, until who gave them the tools that read files has heard of it."""

from alembic import op

revision = "0021"
down_revision = "0020"

TABLE = """
-- Agents that lost their last folder, until it is forgotten.
create table memory.folder_losses (
  organization_id text not null,
  position bigint generated always as identity,
  agent_id text not null,
  primary key (organization_id, position),
  foreign key (organization_id, agent_id) references memory.agents (organization_id, id) on delete cascade
);
create index folder_losses_by_agent on memory.folder_losses (organization_id, agent_id);
create index folder_losses_system_order on memory.folder_losses (position);
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(TABLE)
