-- The messages in context: the first one, the summary, and the rest from the window's start.
create or replace function memory.window_of(c memory.conversations) returns bytea[] language sql stable as $$
  select coalesce(array_agg(m.body order by m.lane, m.seq), '{}')
  from (
    select 0 as lane, f.seq, f.body from memory.messages f
    where f.organization_id = c.organization_id and f.conversation_id = c.id and f.seq = c.first_seq
    union all
    select 1, s.seq, s.body from memory.messages s
    where s.organization_id = c.organization_id and s.conversation_id = c.id and s.seq = c.summary_seq
    union all
    select 2, w.seq, w.body from memory.messages w
    where w.organization_id = c.organization_id and w.conversation_id = c.id
      and w.seq >= c.window_seq and w.seq <> c.first_seq and w.role <> 6 /* MessageRole.SUMMARY */
  ) m
$$;
