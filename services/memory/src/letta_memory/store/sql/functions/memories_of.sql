-- What agents keep: a row for each agent with the ids of its messages in context (the first one, the summary, and the rest from
-- the window's start), and, where p_blocks, a row for each block that is attached.
--
-- Written into the statement that calls it, so that its plan is made once a connection. The first message and the summary are two
-- look-ups by the whole key: one by a list of positions would read all of an organization until the table is analyzed. The release
-- before this one calls memory.window_ids_of for each agent.
create or replace function memory.memories_of(p_org text, p_agents text[], p_blocks boolean)
returns table (agent_id text, message_ids text[], block memory.blocks) language sql stable as $$
  select c.id, array(
      select w.id
      from (
        select 1 as part, f.seq, f.id from memory.messages f
        where f.organization_id = p_org and f.conversation_id = c.id and f.seq = c.first_seq
        union all
        select 1, s.seq, s.id from memory.messages s
        where s.organization_id = p_org and s.conversation_id = c.id and s.seq = c.summary_seq
          and c.summary_seq <> c.first_seq
        union all
        select 2, m.seq, m.id from memory.messages m
        where m.organization_id = p_org and m.conversation_id = c.id
          and m.seq >= c.window_seq and m.seq <> c.first_seq and m.role <> 6 /* MessageRole.SUMMARY */
      ) w
      order by w.part, w.seq), null::memory.blocks
  from memory.conversations c
  where c.organization_id = p_org and c.id = any(p_agents)
  union all
  select l.agent_id, null, b
  from memory.agent_blocks l
  join memory.blocks b on b.organization_id = l.organization_id and b.id = l.block_id
  where p_blocks and l.organization_id = p_org and l.agent_id = any(p_agents)
$$;
