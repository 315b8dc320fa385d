-- Accepts a suggestion, which does what it proposes, or dismisses it. Status 0: done, 1: there is none, 2: it was decided otherwise,
-- 3: what it is about has changed or is gone, 4: the block would be too long. A repeat is 0 and changes nothing.
-- Locks: the archive or the block, then the suggestion.
create or replace function memory.decide_suggestion(p_org text, p_user text, p_id text, p_accept boolean, p_now timestamptz)
returns smallint language plpgsql as $$
declare
  s memory.suggestions;
  wanted smallint := case when p_accept then 2 /* MemorySuggestionState.ACCEPTED */
    else 3 /* MemorySuggestionState.DISMISSED */ end;
  status smallint := 0;
begin
  select * into s from memory.suggestions x where x.organization_id = p_org and x.id = p_id;
  perform from memory.archives a where a.organization_id = p_org and a.id = s.archive_id for no key update;
  perform from memory.blocks b where b.organization_id = p_org and b.id = s.block_id for update;
  select * into s from memory.suggestions x where x.organization_id = p_org and x.id = p_id for update;
  if s.id is null then
    return 1;
  elsif s.state = wanted then
    return 0;
  elsif s.state <> 1 /* MemorySuggestionState.OPEN */ then
    return case when s.state = 4 /* MemorySuggestionState.OUTDATED */ then 3 else 2 end;
  end if;
  if p_accept then
    status := case s.kind
      when 1 /* MemorySuggestionKind.MERGE_PASSAGES */ then memory.merge_passages(s, p_user, p_now)
      else memory.correct_block(s, p_user, p_now) end;
    if status = 4 then
      return status;
    elsif status <> 0 then
      wanted := 4 /* MemorySuggestionState.OUTDATED */;
    end if;
  end if;
  update memory.suggestions x set state = wanted, decided_at = p_now,
    decided_by_id = case when status = 0 then p_user end
  where x.organization_id = p_org and x.id = p_id;
  -- There is room for another suggestion now.
  update memory.archives a set review_due = true
  where a.organization_id = p_org and a.id = s.archive_id and a.suggest_duplicates;
  return status;
end $$;
