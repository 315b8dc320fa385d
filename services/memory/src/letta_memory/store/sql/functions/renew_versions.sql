-- Renews the versions of conversations that lost messages.
create or replace function memory.renew_versions() returns trigger language plpgsql as $$
begin
  update memory.conversations t set window_version = t.window_version + 1
  from (select distinct g.organization_id, g.conversation_id from gone g) g
  where t.organization_id = g.organization_id and t.id = g.conversation_id;
  return null;
end $$;
create or replace trigger messages_renew_versions after delete on memory.messages
  referencing old table as gone for each statement execute function memory.renew_versions();
