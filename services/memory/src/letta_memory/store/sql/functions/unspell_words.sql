-- Takes stems out of search_spellings that no text of the scope has any more. Locks: rows of search_spellings.
create or replace function memory.unspell_words(p_org text, p_scope integer, p_stems text[]) returns void language plpgsql as $$
declare
  gone text[];
begin
  gone := array(
    select s.stem from unnest(p_stems) s (stem) where not exists (
      select from memory.search_postings p
      where p.organization_id = p_org and p.scope = p_scope and p.term = hashtext(s.stem)));
  update memory.search_spellings k set stems = array(select unnest(k.stems) except select unnest(gone))
  where k.organization_id = p_org and k.scope = p_scope
    and k.edge = any(array(select unnest(memory.edges_of(g.stem)) from unnest(gone) g (stem)));
end $$;
