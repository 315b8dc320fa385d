-- Replaces the line of a block that a suggestion is about, as a revision that names the suggestion. Status 0: done, 3: it has not
-- that line any more, 4: it would be longer than its limit. Locks: the caller holds the block.
create or replace function memory.correct_block(s memory.suggestions, p_user text, p_now timestamptz) returns smallint
language plpgsql as $$
declare
  b memory.blocks;
  lines text[];
  n integer;
begin
  select * into b from memory.blocks t where t.organization_id = s.organization_id and t.id = s.block_id;
  lines := string_to_array(b.value, E'\n');
  -- Other lines may have come or gone before it.
  n := case when lines[s.line_number] = s.line then s.line_number else array_position(lines, s.line) end;
  if b.id is null or n is null then
    return 3;
  end if;
  lines[n] := s.replacement;
  b.value := array_to_string(lines, E'\n');
  if length(b.value) > b.char_limit then
    return 4;
  end if;
  update memory.blocks t
  set value = b.value, version = t.version + 1, last_updated_by_id = p_user, updated_at = p_now
  where t.organization_id = b.organization_id and t.id = b.id returning * into b;
  insert into memory.block_history (
    organization_id, block_id, version, label, value, description, written_by_id, created_at, kind, suggestion_id)
  values (b.organization_id, b.id, b.version, b.label, b.value, b.description, p_user, p_now,
    12 /* BlockWrite.SUGGESTION */, s.id);
  return 0;
end $$;
