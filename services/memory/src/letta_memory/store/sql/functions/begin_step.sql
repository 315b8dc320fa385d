-- Begins a step for the release before this one, which holds no contexts.
--
-- Status of the first row: 0 done, 1 no such conversation, 2 fenced (fence is the highest one seen). The rows after it have a
-- block each. Locks: the conversation's row.
create or replace function memory.begin_step(
  p_org text, p_agent text, p_conversation text, p_run text, p_fence bigint,
  p_ids text[], p_roles smallint[], p_types integer[], p_flags smallint[], p_runs text[], p_steps text[],
  p_groups text[], p_times timestamptz[], p_searches text[], p_bodies bytea[]
) returns setof memory.step_row language plpgsql as $$
begin
  return query
    select * from memory.begin_step_after(p_org, p_agent, p_conversation, p_run, p_fence, p_ids, p_roles, p_types,
      p_flags, p_runs, p_steps, p_groups, p_times, p_searches, p_bodies, null, null, null, null, null);
end $$;
