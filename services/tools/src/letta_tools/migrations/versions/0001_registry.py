"""Tables of the registry, of executions, MCP servers and sandbox configurations."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute(
        """
        create table tools.tools (
          organization_id text not null,
          id text not null,
          name text not null,
          tool_type text not null,
          description text,
          source_type text not null,
          source_code text,
          json_schema text not null,
          args_json_schema text not null default '',
          tags text[] not null default '{}',
          return_char_limit integer not null,
          pip_requirements jsonb not null default '[]',
          npm_requirements jsonb not null default '[]',
          default_requires_approval boolean,
          enable_parallel_execution boolean not null default false,
          idempotent boolean not null default false,
          metadata text not null default '{}',
          project_id text,
          mcp_server_id text,
          mcp_name text,
          created_by_id text not null default '',
          last_updated_by_id text not null default '',
          version bigint not null,
          created_at timestamptz not null,
          updated_at timestamptz not null,
          search_text text not null,
          search tsvector generated always as (to_tsvector('english'::regconfig, search_text)) stored,
          primary key (organization_id, id)
        );
        create unique index tools_name on tools.tools (organization_id, name);
        create index tools_created on tools.tools (organization_id, created_at, id);
        create index tools_mcp_server on tools.tools (organization_id, mcp_server_id) where mcp_server_id is not null;
        create index tools_search on tools.tools using gin (organization_id, search);
        """
    )
    op.execute(
        """
        create table tools.executions (
          organization_id text not null,
          idempotency_key text not null,
          call_hash text not null,
          tool_id text not null default '',
          agent_id text not null default '',
          attempt integer not null default 1,
          started_at timestamptz not null default now(),
          lease_until timestamptz not null,
          finished_at timestamptz,
          result bytea,
          primary key (organization_id, idempotency_key)
        );
        create index executions_started on tools.executions (organization_id, started_at);
        """
    )
    op.execute(
        """
        create table tools.mcp_servers (
          organization_id text not null,
          id text not null,
          server_name text not null,
          server_type text not null,
          config text not null,
          secrets bytea not null,
          created_by_id text not null default '',
          last_updated_by_id text not null default '',
          version bigint not null,
          created_at timestamptz not null,
          updated_at timestamptz not null,
          primary key (organization_id, id)
        );
        create unique index mcp_servers_name on tools.mcp_servers (organization_id, server_name);
        alter table tools.tools add constraint tools_mcp_server_fk
          foreign key (organization_id, mcp_server_id) references tools.mcp_servers (organization_id, id)
          on delete cascade;
        create table tools.sandbox_configs (
          organization_id text not null,
          id text not null,
          type text not null,
          config text not null,
          created_by_id text not null default '',
          last_updated_by_id text not null default '',
          version bigint not null,
          created_at timestamptz not null,
          updated_at timestamptz not null,
          primary key (organization_id, id)
        );
        create unique index sandbox_configs_type on tools.sandbox_configs (organization_id, type);
        create table tools.environment_variables (
          organization_id text not null,
          id text not null,
          sandbox_config_id text not null,
          key text not null,
          value bytea not null,
          description text,
          created_by_id text not null default '',
          last_updated_by_id text not null default '',
          created_at timestamptz not null,
          updated_at timestamptz not null,
          primary key (organization_id, id),
          foreign key (organization_id, sandbox_config_id)
            references tools.sandbox_configs (organization_id, id) on delete cascade
        );
        create unique index environment_variables_key
          on tools.environment_variables (organization_id, sandbox_config_id, key);
        """
    )
