-- Edits a block of an agent by its label, once for each key.
--
-- Input: p_kind 1 append p_text, 2 replace p_text by p_new (every one with p_all), 3 insert p_text after line p_line, 4 set the
-- value, 5 create with description p_new, 6 delete, 7 rename to p_text with description p_new. p_hash is what the key stands for.
-- Status of the first row: 0 done, 1 no such conversation, 2 fenced, 3 and above as `Status` of domain/contexts.py; notes: what
-- the refusal needs to say. The second row has the block. Locks: the conversation's row shared, the block's row.
create or replace function memory.edit_block(
  p_org text, p_user text, p_agent text, p_conversation text, p_fence bigint, p_key text, p_hash bytea, p_label text,
  p_kind smallint, p_text text, p_new text, p_line integer, p_all boolean, p_new_id text, p_now timestamptz
) returns setof memory.step_row language plpgsql as $$
declare
  highest bigint;
  b memory.blocks;
  h memory.block_history;
  r memory.step_row;
  lines text[];
  n integer;
begin
  r.status := 0 /* Status.DONE */;
  r.repeated := false;
  select t.fence into highest from memory.conversations t
  -- Shared: edits need not wait for each other, only for an owner that raises the fence.
  where t.organization_id = p_org and t.id = p_conversation and t.agent_id = p_agent for share;
  r.fence := highest;
  if highest is null or p_fence < highest then
    r.status := case when highest is null then 1 /* Status.NO_CONVERSATION */ else 2 /* Status.FENCED */ end;
    return next r;
    return;
  end if;
  -- Shuts former owners out with whichever call of the new one comes first.
  if p_fence > highest then
    update memory.conversations t set fence = p_fence where t.organization_id = p_org and t.id = p_conversation;
    r.fence := p_fence;
  end if;

  select b2.* into b from memory.blocks_of(p_org, p_agent, p_conversation) x
  -- Joined again, since rows that a function answers cannot be locked.
  join memory.blocks b2 on b2.organization_id = p_org and b2.id = x.id
  where x.label = p_label for update of b2;
  -- Looked up behind the lock: a repeat that waited for the first one has to see what that wrote.
  select * into h from memory.block_history t where t.organization_id = p_org and t.edit_key = p_key;
  if h.block_id is not null then
    r.repeated := true;
    r.status := case when h.edit_hash = p_hash then 0 /* Status.DONE */ else 3 /* Status.OTHER_EDIT */ end;
    select * into b from memory.blocks t where t.organization_id = p_org and t.id = h.block_id;
    -- The block may be gone by now; the history has what the edit came to.
    b.organization_id := p_org;
    b.id := h.block_id;
    b.label := h.label;
    b.value := h.value;
    b.description := h.description;
    b.version := h.version;
    r.block := b;
    return next r;
    return;
  end if;

  if b.id is null then
    if p_kind <> 5 then
      r.status := 4 /* Status.NO_BLOCK */;
      r.notes := array(
        select x.label from memory.blocks_of(p_org, p_agent, p_conversation) x order by x.label collate "C");
      return next r;
      return;
    end if;
    insert into memory.blocks (
      organization_id, id, label, value, char_limit, description, created_by_id, last_updated_by_id, version,
      created_at, updated_at, preserve_on_migration)
    -- Version 0 marks a block that this edit makes.
    values (p_org, p_new_id, p_label, '', 100000 /* Block.limit */, nullif(p_new, ''), p_user, p_user, 0, p_now, p_now, false)
    returning * into b;
    insert into memory.agent_blocks (organization_id, agent_id, block_id, label) values (p_org, p_agent, b.id, p_label);
  end if;
  if b.read_only then
    r.status := 5 /* Status.READ_ONLY */;
    return next r;
    return;
  end if;

  case p_kind
    when 1 then
      b.value := case when b.value = '' then p_text else b.value || E'\n' || p_text end;
    when 2 then
      n := (length(b.value) - length(replace(b.value, p_text, ''))) / length(p_text);
      if n = 0 or (n > 1 and not p_all) then
        r.status := case when n = 0 then 7 /* Status.NO_MATCH */ else 8 /* Status.NOT_UNIQUE */ end;
        r.notes := memory.lines_of(b.value, p_text);
        return next r;
        return;
      end if;
      b.value := replace(b.value, p_text, p_new);
    when 3 then
      lines := string_to_array(b.value, E'\n');
      n := cardinality(lines);
      if p_line > n then
        r.status := 9 /* Status.NO_LINE */;
        r.notes := array[n::text];
        return next r;
        return;
      end if;
      -- -1 stands for the end of the text, whose number of lines the model need not know.
      p_line := case when p_line = -1 then n else p_line end;
      b.value := array_to_string(lines[1:p_line] || p_text || lines[p_line + 1:n], E'\n');
    when 4 then
      b.value := p_text;
    when 5 then
      b.value := p_text;
      b.description := coalesce(nullif(p_new, ''), b.description);
    -- Only the links go: the block may be attached to other agents.
    when 6 then
      delete from memory.agent_blocks t
      where t.organization_id = p_org and t.agent_id = p_agent and t.block_id = b.id;
      delete from memory.conversation_blocks t
      where t.organization_id = p_org and t.conversation_id = p_conversation and t.block_id = b.id;
    when 7 then
      b.description := coalesce(p_new, b.description);
      if p_text <> '' and p_text <> b.label then
        b.label := p_text;
        update memory.agent_blocks t set label = b.label where t.organization_id = p_org and t.block_id = b.id;
        update memory.conversation_blocks t set label = b.label where t.organization_id = p_org and t.block_id = b.id;
      end if;
  end case;
  -- Removing and renaming change no text, so they are allowed whatever its length is.
  if p_kind < 6 and length(b.value) > b.char_limit then
    r.status := 6 /* Status.TOO_LONG */;
    r.notes := array[length(b.value)::text, b.char_limit::text];
    -- This is an answer and no error, so nothing rolls back the block that was made above.
    if b.version = 0 then
      delete from memory.blocks t where t.organization_id = p_org and t.id = b.id;
    end if;
    return next r;
    return;
  end if;

  update memory.blocks t
  set value = b.value, label = b.label, description = b.description, version = b.version + 1,
    last_updated_by_id = p_user, updated_at = p_now
  where t.organization_id = p_org and t.id = b.id returning * into b;
  insert into memory.block_history (
    organization_id, block_id, version, label, value, description, edit_key, edit_hash, fence, conversation_id,
    written_by_id, created_at, agent_id, kind)
  values (p_org, b.id, b.version, b.label, b.value, b.description, p_key, p_hash, p_fence, p_conversation, p_user,
    p_now, p_agent, p_kind + 1 /* BlockWrite.BLOCK_WRITE_TOOL_APPEND and those after it */);
  r.block := b;
  return next r;
end $$;
