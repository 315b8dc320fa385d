-- Renews the leases of conversations that p_owner still holds; answers the runs whose lease it renewed.
--
-- Locks: the rows of the queue.
create or replace function agent.renew_leases(
  p_owner text, p_lease_ms integer, p_organization_ids text[], p_conversation_ids text[], p_run_ids text[],
  p_fences bigint[]
) returns setof text language sql as $$
  update agent.conversation_queue q
  set lease_until = clock_timestamp() + p_lease_ms * interval '1 millisecond'
  from unnest(p_organization_ids, p_conversation_ids, p_run_ids, p_fences)
    as h(organization_id, conversation_id, run_id, fence)
  where q.organization_id = h.organization_id and q.conversation_id = h.conversation_id and q.run_id = h.run_id
    -- A lease that ran out may still be renewed as long as nobody has claimed the row since.
    and q.fence = h.fence and q.owner = p_owner
  returning q.run_id
$$;
