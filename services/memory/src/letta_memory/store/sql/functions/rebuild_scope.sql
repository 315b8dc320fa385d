-- Indexes the next texts of a scope anew, the newest first, as they are indexed now; answers with how many, and with 0 when
-- none is left.
--
-- A search meanwhile reads its question as former texts were indexed and as new ones are. What is written meanwhile is none of these.
-- Vectors and cells stay. Locks: the scope.
create or replace function memory.rebuild_scope(p_org text, p_scope integer, p_most integer) returns integer
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off
set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  s memory.search_scopes;
  entry memory.search_texts;
  said text;
  n integer := 0;
begin
  select * into s from memory.search_scopes x where x.organization_id = p_org and x.scope = p_scope for no key update;
  if s.rebuild_below is null or s.gone then
    return 0;
  end if;
  for entry in
    select * from memory.search_texts t
    where t.organization_id = p_org and t.scope = p_scope and t.place < s.rebuild_below order by t.place desc limit p_most
  loop
    n := n + 1;
    s.rebuild_below := entry.place;
    said := case when entry.passage_id is not null then (
      select p.text from memory.passages p where p.organization_id = p_org and p.id = entry.passage_id)
    else (
      select m.search from memory.messages m
      where m.organization_id = p_org and m.conversation_id = entry.conversation_id and m.seq = entry.seq) end;
    -- It is being deleted by someone who waits for the scope.
    continue when said is null;
    delete from memory.search_postings p
    where p.organization_id = p_org and p.scope = p_scope and p.term = any(entry.terms) and p.place = entry.place;
    s.word_count := s.word_count - entry.words;
    entry.posted := true;
    entry.speaker := 0;
    s.word_count := s.word_count + memory.write_text(entry, said);
  end loop;
  -- At the end nothing is left of a former release, and all is counted and spelled anew.
  update memory.search_scopes x
  set word_count = s.word_count, rebuild_below = case when n = p_most then s.rebuild_below end,
    due = x.due or n < p_most, languages = case when n < p_most then x.languages & -2 else x.languages end
  where x.organization_id = p_org and x.scope = p_scope;
  return n;
end $$;
