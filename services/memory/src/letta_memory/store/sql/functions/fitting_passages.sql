-- Passages of an archive, or of all, that a filter finds and that were written up to a time.
-- Chunks of files are found by their file alone. Plans are made for each call, so that what is not asked costs nothing. Locks: none.
create or replace function memory.fitting_passages(
  p_org text, p_archive text, p_filter memory.passage_filter, p_written timestamptz, p_most bigint
) returns table (archive_id text, id text) language plpgsql stable set plan_cache_mode = force_custom_plan as $$
begin
  return query
    select p.archive_id, p.id from memory.passages p
    where p.organization_id = p_org and p.updated_at <= p_written
      and (p_archive is null or p.archive_id = p_archive)
      and (p_filter.agent_id is null or p.origin_agent_id = p_filter.agent_id)
      and (p_filter.conversation_id is null or p.origin_conversation_id = p_filter.conversation_id)
      and (p_filter.run_id is null or p.origin_run_id = p_filter.run_id)
      and (p_filter.message_id is null or p.origin_message_id = p_filter.message_id)
      and (p_filter.tool_call_id is null or p.origin_tool_call_id = p_filter.tool_call_id)
      and (p_filter.tool_name is null or p.origin_tool_name = p_filter.tool_name)
      and case when p_filter.file_id is null then p.file_id is null
        else p.file_id = p_filter.file_id or p.origin_file_id = p_filter.file_id end
      and (p_filter.tags is null or case when p_filter.all_tags then p.tags @> p_filter.tags else p.tags && p_filter.tags end)
      and (p_filter.since is null or p.created_at >= p_filter.since)
      and (p_filter.before is null or p.created_at < p_filter.before)
    limit p_most;
end $$;
