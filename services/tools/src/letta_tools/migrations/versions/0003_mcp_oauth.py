"""Authorizations of MCP servers: attempts under way, and what was granted."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute(
        """
        create table tools.mcp_oauth_sessions (
          organization_id text not null,
          id text not null,
          mcp_server_id text not null,
          state_hash bytea not null,
          status text not null,
          answer bytea,
          created_by_id text not null default '',
          created_at timestamptz not null,
          expires_at timestamptz not null,
          primary key (organization_id, id),
          foreign key (organization_id, mcp_server_id)
            references tools.mcp_servers (organization_id, id) on delete cascade
        );
        create index mcp_oauth_sessions_server on tools.mcp_oauth_sessions (organization_id, mcp_server_id);
        create table tools.mcp_oauth_grants (
          organization_id text not null,
          mcp_server_id text not null,
          grant_sealed bytea not null,
          updated_at timestamptz not null,
          primary key (organization_id, mcp_server_id),
          foreign key (organization_id, mcp_server_id)
            references tools.mcp_servers (organization_id, id) on delete cascade
        );
        """
    )
