-- Begins a step: raises the fence, appends the run's input once, and answers with the context.
--
-- Status of the first row: 0 done, 1 no such conversation, 2 fenced (fence is the highest one seen). The rows after it have a
-- block each. Locks: the conversation's row.
create or replace function memory.begin_step(
  p_org text, p_agent text, p_conversation text, p_run text, p_fence bigint, p_pending boolean,
  p_ids text[], p_roles smallint[], p_types integer[], p_flags smallint[], p_runs text[], p_steps text[],
  p_groups text[], p_times timestamptz[], p_searches text[], p_bodies bytea[]
) returns setof memory.step_row language plpgsql as $$
declare
  c memory.conversations;
  r memory.step_row;
  n bigint := cardinality(p_ids);
begin
  select * into c from memory.conversations t
  where t.organization_id = p_org and t.id = p_conversation and t.agent_id = p_agent for no key update;
  r.status := case when not found then 1 /* Status.NO_CONVERSATION */ when p_fence < c.fence then 2 /* Status.FENCED */
    else 0 /* Status.DONE */ end;
  if r.status <> 0 /* Status.DONE */ then
    r.fence := c.fence;
    return next r;
    return;
  end if;
  c := memory.turned_to(c, p_run);
  if c.last_input then
    n := 0;
  end if;
  if n > 0 then
    perform memory.append_messages(p_org, p_conversation, p_agent, c.next_seq, p_pending, p_ids, p_roles, p_types,
      p_flags, p_runs, p_steps, p_groups, p_times, p_searches, p_bodies);
  end if;
  update memory.conversations t
  set fence = p_fence, next_seq = c.next_seq + n, message_count = c.message_count + n,
    last_run = p_run, last_input = c.last_input or n > 0, last_step = c.last_step, last_stop = c.last_stop
  where t.organization_id = p_org and t.id = p_conversation;
  r.fence := p_fence;
  r.message_count := c.message_count + n;
  r.last_step := c.last_step;
  r.last_stop := c.last_stop;
  select a.passage_count into r.passage_count from memory.archive_agents l
  join memory.archives a on a.organization_id = l.organization_id and a.id = l.archive_id
  where l.organization_id = p_org and l.agent_id = p_agent;
  r.messages := memory.window_of(c);
  return next r;
  if p_conversation = p_agent then
    return query
      select null::smallint, null::bigint, null::boolean, null::bigint, null::bigint, null::integer,
        null::smallint, null::text[], null::bytea[], b
      from memory.own_blocks_of(p_org, p_agent) b order by b.label collate "C";
  else
    return query
      select null::smallint, null::bigint, null::boolean, null::bigint, null::bigint, null::integer,
        null::smallint, null::text[], null::bytea[], b
      from memory.blocks_of(p_org, p_agent, p_conversation) b order by b.label collate "C";
  end if;
end $$;
