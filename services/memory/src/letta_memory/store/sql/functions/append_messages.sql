-- Appends messages (arrays by column, one element a message) to a conversation from position p_first on.
--
-- p_pending: whether messages with words wait for the embedder. Locks: none; the caller holds the conversation's row.
create or replace function memory.append_messages(
  p_org text, p_conversation text, p_agent text, p_first bigint, p_pending boolean,
  p_ids text[], p_roles smallint[], p_types integer[], p_flags smallint[], p_runs text[], p_steps text[],
  p_groups text[], p_times timestamptz[], p_searches text[], p_bodies bytea[]
) returns void language sql as $$
  insert into memory.messages (
    organization_id, conversation_id, seq, id, agent_id, role, types, flags, run_id, step_id, group_id, created_at,
    pending, search, body)
  select p_org, p_conversation, p_first + m.place - 1, m.id, p_agent, m.role, m.types, m.flags,
    m.run_id, m.step_id, m.group_id, m.created_at,
    p_pending and m.search <> '', m.search, m.body
  from unnest(p_ids, p_roles, p_types, p_flags, p_runs, p_steps, p_groups, p_times, p_searches, p_bodies)
    with ordinality as m (id, role, types, flags, run_id, step_id, group_id, created_at, search, body, place)
$$;
