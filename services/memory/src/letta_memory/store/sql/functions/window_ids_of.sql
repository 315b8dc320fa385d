-- The ids of the messages in context, in the same order.
create or replace function memory.window_ids_of(c memory.conversations) returns text[] language sql stable as $$
  select coalesce(array_agg(m.id order by m.lane, m.seq), '{}')
  from (
    select 0 as lane, f.seq, f.id from memory.messages f
    where f.organization_id = c.organization_id and f.conversation_id = c.id and f.seq = c.first_seq
    union all
    select 1, s.seq, s.id from memory.messages s
    where s.organization_id = c.organization_id and s.conversation_id = c.id and s.seq = c.summary_seq
    union all
    select 2, w.seq, w.id from memory.messages w
    where w.organization_id = c.organization_id and w.conversation_id = c.id
      and w.seq >= c.window_seq and w.seq <> c.first_seq and w.role <> 6 /* MessageRole.SUMMARY */
  ) m
$$;
