-- Commits a step once: appends its messages, moves the window if it was compacted, and answers with changed blocks.
--
-- Input: p_move says that the window changes: it then begins at p_first_kept (null: at this step's messages), with p_clear
-- after them, and p_summary says that the last message is its summary. p_known_ids and p_known_versions are the blocks that
-- the caller has. Status of the first row: 0 done, 1 no such conversation, 2 fenced; repeated: it was committed before; notes: the
-- known blocks that are attached no more. The rows after it have a changed block each.
-- A run commits its steps in order, so what is no later than its last one was committed before. The next step of the last
-- run, which is what comes nearly always, is one update of the conversation's row; all else looks at the row first.
-- Raises LM001 when p_first_kept is no message of the conversation. Locks: the conversation's row.
create or replace function memory.commit_step(
  p_org text, p_agent text, p_conversation text, p_run text, p_fence bigint, p_step integer, p_stop smallint,
  p_move boolean, p_clear boolean, p_summary boolean, p_first_kept text, p_known_ids text[],
  p_known_versions bigint[],
  p_ids text[], p_roles smallint[], p_types integer[], p_flags smallint[], p_runs text[], p_steps text[],
  p_groups text[], p_times timestamptz[], p_searches text[], p_bodies bytea[]
) returns setof memory.step_row language plpgsql as $$
declare
  c memory.conversations;
  r memory.step_row;
  n bigint := cardinality(p_ids);
  kept bigint;
begin
  r.repeated := false;
  if not p_move then
    update memory.conversations t
    set fence = p_fence, next_seq = t.next_seq + n, message_count = t.message_count + n, last_step = p_step, last_stop = p_stop
    where t.organization_id = p_org and t.id = p_conversation and t.agent_id = p_agent and t.fence <= p_fence
      -- Without a step yet the last one counts as -1, so that step 0 passes.
      and t.last_run = p_run and coalesce(t.last_step, -1) < p_step
    returning t.* into c;
  end if;
  if not found then  -- FOUND is false at the start, so a window that moves comes here too
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
    r.repeated := coalesce(c.last_step, -1) >= p_step;
    if not r.repeated then
      if p_move then
        kept := case when p_clear then c.next_seq + n else c.next_seq end;
        -- The first message to keep may be one of this step, which is in no table yet.
        if p_first_kept = any(p_ids) and not p_clear then
          kept := c.next_seq + array_position(p_ids, p_first_kept) - 1;
        elsif p_first_kept is not null and not p_clear then
          select m.seq into kept from memory.messages m
          where m.organization_id = p_org and m.id = p_first_kept and m.conversation_id = p_conversation;
          if kept is null then
            raise exception 'no message % in conversation %', p_first_kept, p_conversation using errcode = 'LM001';
          end if;
        end if;
        c.window_seq := kept;
        -- Who holds the former window learns from this that it has to read the new one whole.
        c.window_version := c.window_version + 1;
        -- The store appends the summary to the messages of the step, so the last one is it.
        c.summary_seq := case when p_summary then c.next_seq + n - 1 end;
      end if;
      c.next_seq := c.next_seq + n;
      c.message_count := c.message_count + n;
      update memory.conversations t
      set fence = p_fence, next_seq = c.next_seq, message_count = c.message_count, window_seq = c.window_seq,
        summary_seq = c.summary_seq, window_version = c.window_version, last_run = p_run, last_input = c.last_input,
        last_step = p_step, last_stop = p_stop
      where t.organization_id = p_org and t.id = p_conversation;
    end if;
  end if;
  -- A repeat still answers with the blocks, since the first answer may have been lost on its way.
  if r.repeated then
    n := 0;
  end if;
  for i in 1 .. n loop
    insert into memory.messages (
      organization_id, conversation_id, seq, id, agent_id, role, types, flags, run_id, step_id, group_id, created_at,
      search, body)
    values (
      p_org, p_conversation, c.next_seq - n + i - 1, p_ids[i], p_agent, p_roles[i], p_types[i], p_flags[i], p_runs[i],
      p_steps[i], p_groups[i], p_times[i], p_searches[i], p_bodies[i]);
  end loop;
  select 0::smallint /* Status.DONE */, p_fence, r.repeated, c.message_count, null::bigint, null::integer, null::smallint,
    -- Nearly always no block has changed: one comparison then takes the place of two joins.
    case when p_conversation = p_agent and (
      select coalesce(array_agg(b.id), '{}') = p_known_ids and coalesce(array_agg(b.version), '{}') = p_known_versions
      from (select b.id, b.version from memory.own_blocks_of(p_org, p_agent) b order by b.id collate "C") b)
    then '{}'::text[] end,
    null::bytea[], null::memory.blocks,
    case when c.has_folders then (
      select g.directories_version from memory.agents g where g.organization_id = p_org and g.id = p_agent) end
  into r;
  if r.notes is not null then
    return next r;
    return;
  end if;
  r.notes := array(
    select k.id from unnest(p_known_ids) k (id)
    where not exists (select from memory.blocks_of(p_org, p_agent, p_conversation) b where b.id = k.id));
  return next r;
  return query
    select null::smallint, null::bigint, null::boolean, null::bigint, null::bigint, null::integer,
      null::smallint, null::text[], null::bytea[], b, null::bigint
    from memory.blocks_of(p_org, p_agent, p_conversation) b
    left join unnest(p_known_ids, p_known_versions) k (id, version) on k.id = b.id
    -- Also true of blocks that the caller did not name, whose version is null here.
    where k.version is distinct from b.version order by b.label collate "C";
end $$;
