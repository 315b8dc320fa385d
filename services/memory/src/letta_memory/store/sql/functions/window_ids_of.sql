-- The ids of the messages in context, for the release before this one.
--
-- Until something left the context that is one scan. Not a function of SQL, which would be planned anew at each call; nor is a range
-- without an end, as its plan for any values looks dearer than one for these.
create or replace function memory.window_ids_of(c memory.conversations) returns text[] language plpgsql stable as $$
begin
  if c.window_seq = c.first_seq and c.summary_seq is null then
    return array(
      select w.id from memory.messages w
      where w.organization_id = c.organization_id and w.conversation_id = c.id and w.seq between c.window_seq and 1::bigint << 62
        and (w.seq = c.first_seq or w.role <> 6 /* MessageRole.SUMMARY */)
      order by w.seq);
  end if;
  return array(
      select f.id from memory.messages f
      where f.organization_id = c.organization_id and f.conversation_id = c.id
        and f.seq = any(array[c.first_seq, c.summary_seq])
      order by f.seq)
    || array(
      select w.id from memory.messages w
      where w.organization_id = c.organization_id and w.conversation_id = c.id
        and w.seq between c.window_seq and 1::bigint << 62 and w.seq <> c.first_seq and w.role <> 6 /* MessageRole.SUMMARY */
      order by w.seq);
end $$;
