-- Removes texts of a scope from what search keeps: a few at once, of many the rows alone and their postings later.
-- Locks: the scope.
create or replace function memory.remove_texts(p_org text, p_scope integer, p_places integer[]) returns void
language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  n bigint;
  words bigint;
  stems text[];
  spelled boolean;
begin
  -- Before the rows, as whoever writes texts does.
  select s.spelled_place > 0 into spelled
  from memory.search_scopes s where s.organization_id = p_org and s.scope = p_scope for no key update;
  if cardinality(p_places) <= 64 then
    with gone as (
      delete from memory.search_texts t
      where t.organization_id = p_org and t.scope = p_scope and t.place = any(p_places)
      returning t.place, t.terms, t.words, t.stems
    ), posted as (
      delete from memory.search_postings p using gone g cross join unnest(g.terms) u (term)
      where p.organization_id = p_org and p.scope = p_scope and p.term = u.term and p.place = g.place
    )
    select count(*), coalesce(sum(g.words), 0), (select array_agg(distinct u.stem) from gone o cross join unnest(o.stems) u (stem))
    into n, words, stems from gone g;
    if spelled then
      perform memory.unspell_words(p_org, p_scope, stems);
    end if;
  else
    with gone as (
      delete from memory.search_texts t
      where t.organization_id = p_org and t.scope = p_scope and t.place = any(p_places)
      returning t.place, t.terms, t.words
    ), noted as (
      insert into memory.search_removals (organization_id, scope, place, terms)
      select p_org, p_scope, g.place, g.terms from gone g
    )
    select count(*), coalesce(sum(g.words), 0) into n, words from gone g;
  end if;
  -- While it is untidy, a search looks whether what its words found is still there.
  update memory.search_scopes s
  set text_count = s.text_count - n, word_count = s.word_count - words, untidy = s.untidy or cardinality(p_places) > 64
  where s.organization_id = p_org and s.scope = p_scope;
end $$;
