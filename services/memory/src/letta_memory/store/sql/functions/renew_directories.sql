-- Renews what tells whether the directories of agents are still those that somebody holds.
--
-- Locks: the rows of the agents, by their ids.
create or replace function memory.renew_directories(p_org text, p_agents text[]) returns void language sql as $$
  -- The time, so that an agent that is made again under its id has another version.
  update memory.agents a
  set directories_version = greatest(a.directories_version + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint)
  from (
    select g.id from memory.agents g where g.organization_id = p_org and g.id = any(p_agents)
    order by g.id for no key update) held
  where a.organization_id = p_org and a.id = held.id
$$;
