"""What each tool was after each write of it."""

from alembic import op

revision = "0002"
down_revision = "0001"

_COLUMNS = """
  name, tool_type, description, source_type, source_code, json_schema, args_json_schema, tags, return_char_limit,
  pip_requirements, npm_requirements, default_requires_approval, enable_parallel_execution, idempotent, metadata,
  project_id, mcp_server_id, mcp_name, created_by_id, last_updated_by_id, version, created_at, updated_at
"""


def upgrade() -> None:
    op.execute(
        """
        create table tools.tool_versions (
          organization_id text not null,
          id text not null,
          name text not null,
          tool_type text not null,
          description text,
          source_type text not null,
          source_code text,
          json_schema text not null,
          args_json_schema text not null,
          tags text[] not null,
          return_char_limit integer not null,
          pip_requirements jsonb not null,
          npm_requirements jsonb not null,
          default_requires_approval boolean,
          enable_parallel_execution boolean not null,
          idempotent boolean not null,
          metadata text not null,
          project_id text,
          mcp_server_id text,
          mcp_name text,
          created_by_id text not null,
          last_updated_by_id text not null,
          version bigint not null,
          created_at timestamptz not null,
          updated_at timestamptz not null,
          primary key (organization_id, id, version),
          foreign key (organization_id, id) references tools.tools (organization_id, id) on delete cascade
        );
        """
    )
    op.execute(
        f"insert into tools.tool_versions (organization_id, id, {_COLUMNS}) "
        f"select organization_id, id, {_COLUMNS} from tools.tools"
    )
