-- The files whose text an agent can read, with what it has opened of them.
--
-- Answers: the file, its folder, when both were made, and how it is open. Locks: none.
create or replace function memory.files_of(p_org text, p_agent text) returns table (
  file_id text, name text, folder_id text, folder_name text, text_bytes bigint, created_at timestamptz, is_open boolean,
  start_line integer, end_line integer, last_accessed_at timestamptz
) language sql stable as $$
  -- `is true`, by which a query for the open ones alone begins with what the agent opened and not with all files.
  select f.id, d.name || '/' || f.name, d.id, d.name, f.text_bytes, f.created_at, o.is_open is true,
    coalesce(o.start_line, 0), o.end_line, o.last_accessed_at
  from memory.folder_agents l
  join memory.folders d on d.organization_id = l.organization_id and d.id = l.folder_id
  join memory.files f on f.organization_id = l.organization_id and f.folder_id = l.folder_id
  left join memory.agent_files o on o.organization_id = l.organization_id and o.agent_id = l.agent_id and o.file_id = f.id
  where l.organization_id = p_org and l.agent_id = p_agent and d.deleted_at is null and f.deleted_at is null
    -- Only a file whose text was read has been cut into chunks.
    and f.chunk_count is not null
$$;
