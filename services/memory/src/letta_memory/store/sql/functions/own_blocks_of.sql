-- The blocks attached to an agent. Its first conversation, which has the agent's id, has no others in their place.
create or replace function memory.own_blocks_of(p_org text, p_agent text) returns setof memory.blocks
language sql stable as $$
  select b.*
  from memory.agent_blocks l
  join memory.blocks b on b.organization_id = l.organization_id and b.id = l.block_id
  where l.organization_id = p_org and l.agent_id = p_agent
$$;
