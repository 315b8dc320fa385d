-- The row of a conversation turned to a run: what the last run came to is put by, and what is known of this one taken up.
--
-- A conversation keeps the last run beside itself (last_run, whether its input was appended, its last step and why it
-- stopped). Runs before it are in committed_steps, with step -1 where no step was committed. Changes nothing when the run is
-- the last one. Locks: none; the caller holds the row of the conversation, and writes what this answers.
create or replace function memory.turned_to(c memory.conversations, p_run text) returns memory.conversations
language plpgsql as $$
begin
  if c.last_run = p_run then
    return c;
  end if;
  if c.last_input or c.last_step is not null then
    insert into memory.committed_steps (organization_id, run_id, step_index, conversation_id, stop_reason)
    values (c.organization_id, c.last_run, coalesce(c.last_step, -1), c.id, coalesce(c.last_stop, 0)) on conflict do nothing;
  end if;
  select s.step_index, s.stop_reason into c.last_step, c.last_stop from memory.committed_steps s
  where s.organization_id = c.organization_id and s.run_id = p_run order by s.step_index desc limit 1;
  c.last_input := found;
  c.last_run := p_run;
  if c.last_step = -1 then
    c.last_step := null;
    c.last_stop := null;
  end if;
  return c;
end $$;
