-- Writes the stems of a scope to search_spellings: those of texts that came since, or of all anew, as far as there are many.
-- Locks: the spelling of the scope, by an advisory lock; at the end the scope.
create or replace function memory.spell_scope(p_org text, p_scope integer, p_whole boolean) returns void language plpgsql
set enable_seqscan = off as $$
declare
  s memory.search_scopes;
begin
  perform pg_advisory_xact_lock(hashtextextended('letta.spell.' || p_org, p_scope));
  select * into s from memory.search_scopes x where x.organization_id = p_org and x.scope = p_scope;
  -- A search reads the stems of a few texts from these.
  if s.word_count < 5000 and s.spelled_place = 0 then
    return;
  end if;
  if p_whole then
    delete from memory.search_spellings k where k.organization_id = p_org and k.scope = p_scope;
    s.spelled_place := 0;
  end if;
  insert into memory.search_spellings as k (organization_id, scope, edge, stems)
  select p_org, p_scope, e.edge, array_agg(d.stem) from (
    select distinct u.stem from memory.search_texts t cross join lateral unnest(t.stems) u (stem)
    where t.organization_id = p_org and t.scope = p_scope and t.place > s.spelled_place and t.place < s.next_place) d
  cross join lateral unnest(memory.edges_of(d.stem)) e (edge)
  group by e.edge order by e.edge
  on conflict (organization_id, scope, edge)
  do update set stems = array(select unnest(k.stems) union select unnest(excluded.stems)) where not k.stems @> excluded.stems;
  update memory.search_scopes x
  set spelled_place = s.next_place - 1, spelled_words = s.word_count, unspelled = false
  where x.organization_id = p_org and x.scope = p_scope;
end $$;
