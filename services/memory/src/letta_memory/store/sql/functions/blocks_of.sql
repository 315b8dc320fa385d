-- The blocks that a conversation sees: the agent's, and its own in their place where labels are equal.
create or replace function memory.blocks_of(p_org text, p_agent text, p_conversation text) returns setof memory.blocks
language sql stable as $$
  select b.*
  from memory.agent_blocks l
  join memory.blocks b on b.organization_id = l.organization_id and b.id = l.block_id
  where l.organization_id = p_org and l.agent_id = p_agent
    and not exists (
      select from memory.conversation_blocks o
      where o.organization_id = p_org and o.conversation_id = p_conversation and o.label = l.label)
  union all
  select b.*
  from memory.conversation_blocks l
  join memory.blocks b on b.organization_id = l.organization_id and b.id = l.block_id
  where l.organization_id = p_org and l.conversation_id = p_conversation
$$;
