-- Takes messages that are deleted out of what search keeps; of an agent that goes as a whole, the background does that.
create or replace function memory.forget_messages() returns trigger language plpgsql as $$
begin
  perform memory.remove_texts(r.organization_id, r.scope, r.places) from (
    select t.organization_id, t.scope, array_agg(t.place) as places
    from gone g join memory.search_texts t
      on t.organization_id = g.organization_id and t.conversation_id = g.conversation_id and t.seq = g.seq
    join memory.search_scopes s on s.organization_id = t.organization_id and s.scope = t.scope and not s.gone
    group by 1, 2) r;
  return null;
end $$;
create or replace trigger messages_forget after delete on memory.messages
  referencing old table as gone for each statement execute function memory.forget_messages();
