-- Stores a model's output before its tools run. Answers false when the run lost its conversation to a higher fence.
--
-- Locks: the conversation's row of the queue, shared, so that no other owner claims it meanwhile.
create or replace function agent.checkpoint_step(
  p_organization_id text, p_conversation_id text, p_run_id text, p_fence bigint, p_step_index integer, p_id text,
  p_agent_id text, p_output bytea
) returns boolean language plpgsql as $$
begin
  perform 1 from agent.conversation_queue q
  where q.organization_id = p_organization_id and q.conversation_id = p_conversation_id and q.run_id = p_run_id
    and q.fence = p_fence
  for share;
  if not found then
    return false;
  end if;
  insert into agent.run_steps (organization_id, run_id, step_index, id, agent_id, fence, output)
  values (p_organization_id, p_run_id, p_step_index, p_id, p_agent_id, p_fence, p_output)
  -- The first output stands: its tools may have run, so another one must not take its place.
  on conflict (organization_id, run_id, step_index) do nothing;
  return true;
end $$;
