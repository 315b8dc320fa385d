-- Renews the version of a conversation whose message has another body now.
create or replace function memory.renew_version() returns trigger language plpgsql as $$
begin
  update memory.conversations t set window_version = t.window_version + 1
  where t.organization_id = new.organization_id and t.id = new.conversation_id;
  return null;
end $$;
create or replace trigger messages_renew_version after update of body on memory.messages
  for each row execute function memory.renew_version();
