-- Renews the directories of agents that got or lost folders, says to their conversations whether they have any, and keeps in mind
-- whose last one is gone.
--
-- Locks: the rows of the agents, then those of their conversations.
create or replace function memory.renew_folders_of_agents() returns trigger language plpgsql as $$
begin
  perform memory.renew_directories(g.organization_id, array_agg(distinct g.agent_id)) from changed g group by g.organization_id;
  update memory.conversations t set has_folders = g.has_folders
  from (
    select c.organization_id, c.agent_id, exists (
      select from memory.folder_agents l where l.organization_id = c.organization_id and l.agent_id = c.agent_id) as has_folders
    from (select distinct n.organization_id, n.agent_id from changed n) c) g
  where t.organization_id = g.organization_id and t.agent_id = g.agent_id and t.has_folders <> g.has_folders;
  if tg_op = 'DELETE' then
    -- The rows of the agents are held since they were renewed, so of two folders that go at once one is the last.
    insert into memory.folder_losses (organization_id, agent_id)
    select a.organization_id, a.id from (select distinct n.organization_id, n.agent_id from changed n) c
    join memory.agents a on a.organization_id = c.organization_id and a.id = c.agent_id
    where not exists (
      select from memory.folder_agents l where l.organization_id = c.organization_id and l.agent_id = c.agent_id)
    order by a.id;
  end if;
  return null;
end $$;
create or replace trigger folder_agents_renew_added after insert on memory.folder_agents
  referencing new table as changed for each statement execute function memory.renew_folders_of_agents();
create or replace trigger folder_agents_renew_removed after delete on memory.folder_agents
  referencing old table as changed for each statement execute function memory.renew_folders_of_agents();
