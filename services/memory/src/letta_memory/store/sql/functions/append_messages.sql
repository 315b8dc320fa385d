-- Appends messages (arrays by column, one element a message) to a conversation from position p_first on.
--
-- A statement for each message has a plan that is made once;
-- one over unnested arrays would be planned anew each time. The statements of the loop have the same loop in themselves: a call
-- with so many arrays costs twice what an insert does. Locks: none; the caller holds the conversation's row.
create or replace function memory.append_messages(
  p_org text, p_conversation text, p_agent text, p_first bigint,
  p_ids text[], p_roles smallint[], p_types integer[], p_flags smallint[], p_runs text[], p_steps text[],
  p_groups text[], p_times timestamptz[], p_searches text[], p_bodies bytea[]
) returns void language plpgsql as $$
begin
  for i in 1 .. cardinality(p_ids) loop
    insert into memory.messages (
      organization_id, conversation_id, seq, id, agent_id, role, types, flags, run_id, step_id, group_id, created_at,
      search, body)
    values (
      p_org, p_conversation, p_first + i - 1, p_ids[i], p_agent, p_roles[i], p_types[i], p_flags[i], p_runs[i],
      p_steps[i], p_groups[i], p_times[i], p_searches[i], p_bodies[i]);
  end loop;
end $$;
