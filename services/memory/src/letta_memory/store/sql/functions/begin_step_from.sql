-- Begins a step: raises the fence, appends the run's input once, and answers with what of the context the caller does not have.
--
-- Input: p_held_version and p_held_seq are the version and the next position of the context that the caller holds (null:
-- none), p_known_ids (sorted) and p_known_versions the blocks. Status of the first row: 0 done, 1 no such conversation, 2 fenced
-- (fence is the highest one seen); notes: version and next position now, whether the messages follow those that the caller
-- holds, and whether the blocks are what it holds. Else the rows after the first have a block each.
-- Takes the place of memory.begin_step, which the release before this one calls. Locks: the conversation's row.
create or replace function memory.begin_step_from(
  p_org text, p_agent text, p_conversation text, p_run text, p_fence bigint, p_pending boolean,
  p_ids text[], p_roles smallint[], p_types integer[], p_flags smallint[], p_runs text[], p_steps text[],
  p_groups text[], p_times timestamptz[], p_searches text[], p_bodies bytea[],
  p_held_version bigint, p_held_seq bigint, p_known_ids text[], p_known_versions bigint[]
) returns setof memory.step_row language plpgsql as $$
declare
  c memory.conversations;
  r memory.step_row;
  n bigint := cardinality(p_ids);
  ids text[];
  versions bigint[];
  held boolean;
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
  if p_conversation = p_agent then
    select coalesce(array_agg(b.id), '{}'), coalesce(array_agg(b.version), '{}') into ids, versions
    from (select b.id, b.version from memory.own_blocks_of(p_org, p_agent) b order by b.id collate "C") b;
  end if;
  held := coalesce(p_held_version = c.window_version, false);
  if held then
    r.messages := array(
      select m.body from memory.messages m
      where m.organization_id = p_org and m.conversation_id = p_conversation and m.seq >= p_held_seq
        and m.role <> 6 /* MessageRole.SUMMARY */
      order by m.seq);
  else
    r.messages := memory.window_of(c);
  end if;
  r.notes := array[
    c.window_version::text, (c.next_seq + n)::text, held::text,
    coalesce(ids = p_known_ids and versions = p_known_versions, false)::text];
  return next r;
  if r.notes[4] = 'true' then
    return;
  end if;
  return query
    select null::smallint, null::bigint, null::boolean, null::bigint, null::bigint, null::integer,
      null::smallint, null::text[], null::bytea[], b
    from memory.blocks_of(p_org, p_agent, p_conversation) b order by b.label collate "C";
end $$;
