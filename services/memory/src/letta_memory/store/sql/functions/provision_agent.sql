-- Makes the memory of an agent unless it exists; answers with what it keeps, as memory.memories_of does.
--
-- p_blocks: the new blocks, a JSON array of rows. One that is there already stays as it is. p_attached: the blocks to attach, new
-- ones and others; LM002, with the id as its message, where there is no such block. Then the messages of the default
-- conversation, arrays by column; the last summary among them stands for what came before. Locks: the agent's row, so that a
-- repeat waits for the first one.
create or replace function memory.provision_agent(
  p_org text, p_agent text, p_name text, p_embedder text, p_blocks text, p_attached text[],
  p_ids text[], p_roles smallint[], p_types integer[], p_flags smallint[], p_runs text[], p_steps text[],
  p_groups text[], p_times timestamptz[], p_searches text[], p_bodies bytea[]
) returns table (agent_id text, message_ids text[], block memory.blocks) language plpgsql as $$
#variable_conflict use_column
declare
  made memory.blocks;
  attached text;
begin
  insert into memory.agents (organization_id, id, name, embedder) values (p_org, p_agent, p_name, p_embedder)
  on conflict (organization_id, id) do nothing;
  if not found then
    return query select m.agent_id, m.message_ids, m.block from memory.memories_of(p_org, array[p_agent], true) m;
    return;
  end if;
  for made in select n.* from json_populate_recordset(null::memory.blocks, p_blocks::json) n loop
    insert into memory.blocks (
      organization_id, id, label, value, char_limit, description, read_only, metadata, tags, hidden, project_id,
      template_name, is_template, template_id, base_template_id, deployment_id, entity_id, preserve_on_migration,
      created_by_id, last_updated_by_id, version, created_at, updated_at)
    values (
      p_org, made.id, made.label, made.value, made.char_limit, made.description, made.read_only, made.metadata,
      made.tags, made.hidden, made.project_id, made.template_name, made.is_template, made.template_id,
      made.base_template_id, made.deployment_id, made.entity_id, made.preserve_on_migration, made.created_by_id,
      made.last_updated_by_id, made.version, made.created_at, made.updated_at)
    on conflict do nothing;
    if found then
      insert into memory.block_history (
        organization_id, block_id, version, label, value, description, written_by_id, created_at)
      values (
        p_org, made.id, made.version, made.label, made.value, made.description, made.last_updated_by_id,
        made.updated_at)
      on conflict do nothing;
    end if;
  end loop;
  foreach attached in array p_attached loop
    insert into memory.agent_blocks (organization_id, agent_id, block_id, label)
    select b.organization_id, p_agent, b.id, b.label from memory.blocks b
    where b.organization_id = p_org and b.id = attached
    on conflict (organization_id, agent_id, block_id) do nothing;
    if not found and not exists (
      select from memory.blocks b where b.organization_id = p_org and b.id = attached)
    then
      -- store/provisions.py makes an error of this code that names the block.
      raise exception using errcode = 'LM002', message = attached;
    end if;
  end loop;
  insert into memory.conversations (organization_id, id, agent_id, next_seq, message_count, summary_seq)
  values (
    p_org, p_agent, p_agent, 1 + cardinality(p_ids), cardinality(p_ids), (
      select max(r.seq) from unnest(p_roles) with ordinality r(role, seq) where r.role = 6 /* MessageRole.SUMMARY */));
  perform memory.append_messages(
    p_org, p_agent, p_agent, 1, p_ids, p_roles, p_types, p_flags, p_runs, p_steps, p_groups, p_times,
    p_searches, p_bodies);
  return query
    select p_agent, p_ids, null::memory.blocks union all select p_agent, null, b from memory.own_blocks_of(p_org, p_agent) b;
end $$;
