-- Begins a step: raises the fence, appends the run's input once, and answers with what of the context the caller does not have.
--
-- Input: p_held_version and p_held_seq are the version and the next position of the context that the caller holds (null:
-- none), p_held_last its last message, p_known_ids (sorted) and p_known_versions the blocks. Status of the first row: 0 done, 1 no such conversation, 2 fenced
-- (fence is the highest one seen); notes: version and next position now, whether the messages follow those that the caller
-- holds, and whether the blocks are what it holds. Else the rows after the first have a block each.
-- Takes the place of memory.begin_step, which the release before this one calls. Locks: the conversation's row.
create or replace function memory.begin_step_after(
  p_org text, p_agent text, p_conversation text, p_run text, p_fence bigint,
  p_ids text[], p_roles smallint[], p_types integer[], p_flags smallint[], p_runs text[], p_steps text[],
  p_groups text[], p_times timestamptz[], p_searches text[], p_bodies bytea[],
  p_held_version bigint, p_held_seq bigint, p_held_last text, p_known_ids text[], p_known_versions bigint[]
) returns setof memory.step_row language plpgsql as $$
declare
  c memory.conversations;
  r memory.step_row;
  n bigint := cardinality(p_ids);
  held boolean;
begin
  -- This lock puts owners of a conversation in a row, so that two never write at one position.
  select * into c from memory.conversations t
  where t.organization_id = p_org and t.id = p_conversation and t.agent_id = p_agent for no key update;
  r.status := case when not found then 1 /* Status.NO_CONVERSATION */ when p_fence < c.fence then 2 /* Status.FENCED */
    else 0 /* Status.DONE */ end;
  if r.status <> 0 /* Status.DONE */ then
    r.fence := c.fence;
    return next r;
    return;
  end if;
  -- A database that was restored may have given the version and the position to other messages since, and to other texts of
  -- blocks their versions. The last message of the caller was written when the caller read, so it tells of all of them.
  held := coalesce(p_held_version = c.window_version, false) and exists (
    select from memory.messages m
    where m.organization_id = p_org and m.conversation_id = p_conversation and m.seq = p_held_seq - 1 and m.id = p_held_last);
  -- Takes up what a former owner of this run left, so that a take-over does not append the input again.
  c := memory.turned_to(c, p_run);
  if c.last_input then
    n := 0;
  end if;
  for i in 1 .. n loop
    insert into memory.messages (
      organization_id, conversation_id, seq, id, agent_id, role, types, flags, run_id, step_id, group_id, created_at,
      search, body)
    values (
      p_org, p_conversation, c.next_seq + i - 1, p_ids[i], p_agent, p_roles[i], p_types[i], p_flags[i], p_runs[i],
      p_steps[i], p_groups[i], p_times[i], p_searches[i], p_bodies[i]);
  end loop;
  update memory.conversations t
  set fence = p_fence, next_seq = c.next_seq + n, message_count = c.message_count + n,
    last_run = p_run, last_input = c.last_input or n > 0, last_step = c.last_step, last_stop = c.last_stop
  where t.organization_id = p_org and t.id = p_conversation;
  select 0::smallint /* Status.DONE */, p_fence, null::boolean, c.message_count + n,
    (select a.passage_count from memory.archive_agents l
     join memory.archives a on a.organization_id = l.organization_id and a.id = l.archive_id
     where l.organization_id = p_org and l.agent_id = p_agent),
    c.last_step, c.last_stop,
    array[
      -- Texts, since step_row has one array of notes for all statements of the loop.
      c.window_version, c.next_seq + n, held::integer,
      (held and p_conversation = p_agent and (
        select coalesce(array_agg(b.id), '{}') = p_known_ids and coalesce(array_agg(b.version), '{}') = p_known_versions
        -- By bytes, as Python sorts the ids that it sends.
        from (select b.id, b.version from memory.own_blocks_of(p_org, p_agent) b order by b.id collate "C") b))::integer
    ]::text[],
    -- The upper bound is for the planner, as in window_of. A summary belongs to the window, not to what is newer.
    case when held then array(
      select m.body from memory.messages m
      where m.organization_id = p_org and m.conversation_id = p_conversation and m.seq between p_held_seq and 1::bigint << 62
        and m.role <> 6 /* MessageRole.SUMMARY */
      order by m.seq) else memory.window_of(c) end,
    null::memory.blocks,
    -- Agents without folders are spared the look.
    case when c.has_folders then (
      select g.directories_version from memory.agents g where g.organization_id = p_org and g.id = p_agent) end
  into r;
  return next r;
  -- The caller has these very blocks, so their texts need not travel.
  if r.notes[4] = '1' then
    return;
  end if;
  return query
    select null::smallint, null::bigint, null::boolean, null::bigint, null::bigint, null::integer,
      null::smallint, null::text[], null::bytea[], b, null::bigint
    from memory.blocks_of(p_org, p_agent, p_conversation) b order by b.label collate "C";
end $$;
