-- Gives a run that stopped for an approval which still waits back to the queue, to be ended; says whether it was one.
--
-- Whoever claims it next finds it cancelled and denies the calls. It is due before all other runs of its organization, since it
-- waits for no slot. Locks: the conversation's row of the queue, the run's row.
create or replace function agent.reopen_run(p_organization_id text, p_run_id text) returns boolean
language plpgsql as $$
begin
  -- The epoch is the oldest lease there is, and the longest due is claimed first.
  update agent.conversation_queue q set run_id = p_run_id, owner = null, lease_until = 'epoch'
  from agent.runs r
  where r.organization_id = p_organization_id and r.id = p_run_id and r.status = 3 /* RunStatus.COMPLETED */
    and r.stop_reason = 12 /* StopReason.REQUIRES_APPROVAL */ and r.completed_at >= q.approval_since
    and q.organization_id = r.organization_id and q.conversation_id = r.conversation_id and q.run_id is null
    and q.approval_message_id is not null;
  if not found then
    return false;
  end if;
  update agent.runs r set status = 2 /* RunStatus.RUNNING */, cancel_requested = true, completed_at = null
  where r.organization_id = p_organization_id and r.id = p_run_id;
  return true;
end $$;
