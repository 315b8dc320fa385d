-- Takes the input of a run that came to nothing out of its conversation again; nothing when a step of it was committed.
--
-- Answers a status as the other calls of the agent loop do, the fence, and whether there was an input. Locks: the
-- conversation's row.
create or replace function memory.withdraw_input(
  p_org text, p_agent text, p_conversation text, p_run text, p_fence bigint,
  out status smallint, out fence bigint, out withdrawn boolean
) language plpgsql as $$
declare
  c memory.conversations;
  n bigint;
begin
  withdrawn := false;
  select * into c from memory.conversations t
  where t.organization_id = p_org and t.id = p_conversation and t.agent_id = p_agent for no key update;
  status := case when not found then 1 /* Status.NO_CONVERSATION */
    when p_fence < c.fence then 2 /* Status.FENCED */ else 0 /* Status.DONE */ end;
  fence := c.fence;
  if status <> 0 /* Status.DONE */ then
    return;
  end if;
  c := memory.turned_to(c, p_run);
  withdrawn := coalesce(c.last_input, false) and c.last_step is null;
  if not withdrawn then
    return;
  end if;
  delete from memory.committed_steps s
  where s.organization_id = p_org and s.run_id = p_run and s.step_index = -1 and s.conversation_id = p_conversation;
  with gone as (
    delete from memory.messages m
    -- The opening message stays whatever run made it: every window begins with it.
    where m.organization_id = p_org and m.run_id = p_run and m.conversation_id = p_conversation and m.seq <> c.first_seq
    returning m.organization_id, m.id, m.created_at, m.seq
  ), kept as (
    -- Lists that stand at a withdrawn message can still go on from it.
    insert into memory.tombstones (organization_id, id, created_at, seq) select * from gone on conflict do nothing
  )
  select count(*) into n from gone;
  update memory.conversations t
  set fence = p_fence, message_count = c.message_count - n,
    last_run = p_run, last_input = false, last_step = null, last_stop = null
  where t.organization_id = p_org and t.id = p_conversation;
  fence := p_fence;
end $$;
