-- Renews the directories of the agents that can read a file, when it comes, goes or gets another name. One that comes is opened
-- where there is room.
--
-- Locks: the rows of the agents.
create or replace function memory.renew_file() returns trigger language plpgsql as $$
declare
  agents text[] := array(
    select l.agent_id from memory.folder_agents l
    where l.organization_id = new.organization_id and l.folder_id = new.folder_id order by l.agent_id);
begin
  if cardinality(agents) = 0 then
    return null;
  end if;
  perform memory.renew_directories(new.organization_id, agents);
  if new.chunk_count is not null and new.deleted_at is null then
    insert into memory.agent_files (organization_id, agent_id, folder_id, file_id, is_open, last_accessed_at)
    select g.organization_id, g.id, new.folder_id, new.id, true, clock_timestamp() from memory.agents g
    where g.organization_id = new.organization_id and g.id = any(agents)
      and g.max_files_open > (select count(*) from memory.files_of(g.organization_id, g.id) o where o.is_open)
    on conflict (organization_id, agent_id, file_id) do nothing;
  end if;
  return null;
end $$;
create or replace trigger files_renew after update on memory.files for each row
  when ((old.name, old.deleted_at, old.chunk_count is null) is distinct from (new.name, new.deleted_at, new.chunk_count is null))
  execute function memory.renew_file();
