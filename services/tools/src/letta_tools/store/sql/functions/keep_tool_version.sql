-- Keeps each version of a tool when it is written, the last 100 of them.
create or replace function tools.keep_tool_version() returns trigger language plpgsql as $$
begin
  insert into tools.tool_versions (organization_id, id,
    name, tool_type, description, source_type, source_code, json_schema, args_json_schema, tags, return_char_limit,
    pip_requirements, npm_requirements, default_requires_approval, enable_parallel_execution, idempotent, metadata,
    project_id, mcp_server_id, mcp_name, created_by_id, last_updated_by_id, version, created_at, updated_at)
  select new.organization_id, new.id, new.name, new.tool_type, new.description, new.source_type, new.source_code,
    new.json_schema, new.args_json_schema, new.tags, new.return_char_limit, new.pip_requirements,
    new.npm_requirements, new.default_requires_approval, new.enable_parallel_execution, new.idempotent, new.metadata,
    new.project_id, new.mcp_server_id, new.mcp_name, new.created_by_id, new.last_updated_by_id, new.version,
    new.created_at, new.updated_at
  on conflict (organization_id, id, version) do nothing;
  delete from tools.tool_versions v
  where v.organization_id = new.organization_id and v.id = new.id and v.version <= new.version - 100;
  return null;
end $$;

create or replace trigger tools_keep_version after insert or update on tools.tools
  for each row execute function tools.keep_tool_version();
