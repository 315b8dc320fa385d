-- Renews the directories of the agents that have a folder, when it is told otherwise than before.
--
-- Locks: the rows of the agents.
create or replace function memory.renew_folder() returns trigger language plpgsql as $$
begin
  perform memory.renew_directories(new.organization_id, array(
    select l.agent_id from memory.folder_agents l where l.organization_id = new.organization_id and l.folder_id = new.id));
  return null;
end $$;
create or replace trigger folders_renew after update on memory.folders for each row
  when ((old.name, old.description, old.instructions) is distinct from (new.name, new.description, new.instructions))
  execute function memory.renew_folder();
