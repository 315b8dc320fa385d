-- Claims conversations with work and no live lease: a run whose owner is gone, or the oldest that waits.
--
-- Input: p_limit at most in all; of one organization p_of_one at most, or what p_left says for those in p_organization_ids
-- (0: none). Organizations with work share a batch equally; where it is too small for all, those come first that may have most
-- yet, of equals the one that is due longest. Within an organization the conversation comes first that is due longest.
-- The answer has all that a runner needs, with what waits for approval in the conversation. `claims` counts how often the run
-- was taken over. Agents and conversations that are being removed are left alone. A conversation held by a run that has ended
-- goes to the next one. Reads one row of the index for each organization at work, and no more rows of one than it may claim.
-- Locks: the rows of the queue, skipping those that others hold.
create or replace function agent.claim_due_runs(
  p_owner text, p_lease_ms integer, p_limit integer, p_of_one integer, p_organization_ids text[], p_left integer[]
)
returns table (
  organization_id text, agent_id text, conversation_id text, run_id text, fence bigint, user_id text, scopes text[],
  definition bytea, conversation bytea, secrets bytea, tool_ids text[], context_tokens integer, request bytea,
  input bytea, claims integer, background boolean, run_type text, cancel_requested boolean,
  approval_message_id text, approval_call_ids text[], approval_message bytea
) language plpgsql as $$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
begin
  return query
  -- One step of the recursion an organization: a skip through the index instead of a scan of all runs.
  with recursive at_work as (
    (select q.organization_id, q.lease_until from agent.conversation_queue q
     where q.run_id is not null or q.pending > 0
     order by q.organization_id, q.lease_until limit 1)
    union all
    select n.organization_id, n.lease_until
    from at_work w cross join lateral (
      select q.organization_id, q.lease_until from agent.conversation_queue q
      where q.organization_id > w.organization_id and (q.run_id is not null or q.pending > 0)
      order by q.organization_id, q.lease_until limit 1) n
  ), open as materialized (
    select w.organization_id, w.lease_until, coalesce(l.room, p_of_one) as room,
      -- At least one each, so that many organizations with work do not round everybody's share down to none.
      least(coalesce(l.room, p_of_one), greatest(p_limit / count(*) over (), 1)) as share
    from at_work w left join unnest(p_organization_ids, p_left) l(organization_id, room)
      on l.organization_id = w.organization_id
    where w.lease_until <= v_now and coalesce(l.room, p_of_one) > 0
  ), due as (
    select d.*
    from (select o.organization_id, o.share from open o order by o.room desc, o.lease_until) o
    cross join lateral (
      select q.organization_id, q.conversation_id, q.run_id as held, coalesce((
          select h.id from agent.runs h
          where h.organization_id = q.organization_id and h.id = q.run_id
            and h.status in (1 /* RunStatus.CREATED */, 2 /* RunStatus.RUNNING */)), (
          select w.id from agent.runs w
          where w.organization_id = q.organization_id and w.conversation_id = q.conversation_id and w.queued
            and w.status = 1 /* RunStatus.CREATED */
          order by w.created_at, w.id limit 1)) as run_id
      from agent.conversation_queue q
      where q.organization_id = o.organization_id and (q.run_id is not null or q.pending > 0)
        and q.lease_until <= v_now
        and exists (
          select from agent.agents a
          where a.organization_id = q.organization_id and a.id = q.agent_id and a.state = 1 /* Stage.READY */)
        and (q.conversation_id = q.agent_id or exists (
          select from agent.conversations v
          where v.organization_id = q.organization_id and v.id = q.conversation_id and v.state = 1 /* Stage.READY */))
      order by q.lease_until
      limit o.share
      -- Replicas look at the same time: each takes other rows instead of waiting for the first one.
      for update of q skip locked) d
    limit p_limit
  ), claimed as (
    update agent.conversation_queue q
    -- A row that holds an ended run with nothing behind it becomes free instead of going to somebody.
    set owner = case when due.run_id is null then null else p_owner end,
        fence = q.fence + 1,
        lease_until = case when due.run_id is null then q.lease_until
                           else v_now + p_lease_ms * interval '1 millisecond' end,
        run_id = due.run_id,
        -- A run from the queue is counted in pending, one whose owner died is not.
        pending = case when due.run_id is null then 0 when due.run_id is distinct from due.held
                       then greatest(q.pending - 1, 0) else q.pending end
    from due
    where q.organization_id = due.organization_id and q.conversation_id = due.conversation_id
    returning q.*
  ), begun as (
    update agent.runs r
    -- A run that had not begun is no take-over, so it uses up none of those it may have.
    set status = 2 /* RunStatus.RUNNING */, claims = r.claims + case when r.status = 2 /* RunStatus.RUNNING */ then 1 else 0 end,
        started_at = coalesce(r.started_at, v_now), queued = false
    from claimed c
    where r.organization_id = c.organization_id and r.id = c.run_id
      and r.status in (1 /* RunStatus.CREATED */, 2 /* RunStatus.RUNNING */)
    returning r.*
  )
  select b.organization_id, b.agent_id, b.conversation_id, b.id, c.fence, b.user_id, b.scopes, a.definition,
    v.definition, a.secrets, array(select t.tool_id from agent.agent_tools t
      where t.organization_id = b.organization_id and t.agent_id = b.agent_id order by t.position, t.tool_id),
    c.context_tokens, b.request, b.input, b.claims, b.background, b.run_type, b.cancel_requested,
    c.approval_message_id, c.approval_call_ids, c.approval_message
  from begun b
  join claimed c on c.organization_id = b.organization_id and c.run_id = b.id
  join agent.agents a on a.organization_id = b.organization_id and a.id = b.agent_id
  left join agent.conversations v on v.organization_id = b.organization_id and v.id = b.conversation_id;
end $$;
