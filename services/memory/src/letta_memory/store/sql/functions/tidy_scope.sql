-- Does a part of what a scope has left undone: indexes texts of an older release, removes postings of texts that are gone, and
-- removes a scope whose archive or agent is gone. Answers with how many texts it saw to. Locks: the scope.
create or replace function memory.tidy_scope(p_org text, p_scope integer, p_most integer) returns integer
language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  s memory.search_scopes;
  entry memory.search_texts;
  said text;
  n integer := 0;
  before integer;
begin
  select * into s from memory.search_scopes x where x.organization_id = p_org and x.scope = p_scope
  for no key update skip locked;
  if not found or not (s.gone or s.untidy) then
    return 0;
  end if;
  if s.gone then
    -- Postings by the row's address, because DELETE knows no LIMIT; texts last, as their count ends the work.
    delete from memory.search_postings p where p.ctid = any(array(
      select x.ctid from memory.search_postings x where x.organization_id = p_org and x.scope = p_scope limit p_most * 20));
    get diagnostics n = row_count;
    if n = 0 then
      delete from memory.search_texts t where t.organization_id = p_org and t.scope = p_scope and t.place = any(array(
        select x.place from memory.search_texts x where x.organization_id = p_org and x.scope = p_scope limit p_most));
      get diagnostics n = row_count;
    end if;
    if n = 0 then
      delete from memory.search_terms x where x.organization_id = p_org and x.scope = p_scope;
      delete from memory.search_spellings x where x.organization_id = p_org and x.scope = p_scope;
      delete from memory.search_cells x where x.organization_id = p_org and x.scope = p_scope;
      delete from memory.search_removals x where x.organization_id = p_org and x.scope = p_scope;
      delete from memory.search_scopes x where x.organization_id = p_org and x.scope = p_scope;
    end if;
    return n;
  end if;
  with gone as (
    delete from memory.search_removals r where r.organization_id = p_org and r.scope = p_scope and r.place = any(array(
      select x.place from memory.search_removals x where x.organization_id = p_org and x.scope = p_scope limit p_most))
    returning r.place, r.terms
  ), posted as (
    delete from memory.search_postings p using gone g cross join unnest(g.terms) u (term)
    where p.organization_id = p_org and p.scope = p_scope and p.term = u.term and p.place = g.place
  )
  select count(*) into n from gone;
  for entry in
    select * from memory.search_texts t
    where t.organization_id = p_org and t.scope = p_scope and not t.posted order by t.place limit p_most
  loop
    select p.text into said from memory.passages p where p.organization_id = p_org and p.id = entry.passage_id;
    before := entry.words;
    entry.posted := true;
    s.word_count := s.word_count - before + memory.write_text(entry, said);
    n := n + 1;
  end loop;
  update memory.search_scopes x set word_count = s.word_count, untidy = n > 0
  where x.organization_id = p_org and x.scope = p_scope;
  return n;
end $$;
