-- Counts a scope anew: in how many texts each word is, where a search does not count that itself, and the mean of the vectors.
--
-- The mean is of the kind of vector that most texts have, of some 5,000 texts. Locks: the scope, at the end.
create or replace function memory.count_scope(p_org text, p_scope integer) returns void language plpgsql as $$
declare
  n integer;
  kind integer;
  center extensions.halfvec;
begin
  select s.text_count into n from memory.search_scopes s where s.organization_id = p_org and s.scope = p_scope;
  -- Below 1,000 texts memory.find_texts counts for itself.
  if n > 500 then
    insert into memory.search_terms as t (organization_id, scope, term, texts)
    select p_org, p_scope, p.term, count(*) from memory.search_postings p
    where p.organization_id = p_org and p.scope = p_scope group by p.term
    on conflict (organization_id, scope, term) do update set texts = excluded.texts where t.texts <> excluded.texts;
  end if;
  select t.model into kind from memory.search_texts t
  where t.organization_id = p_org and t.scope = p_scope and t.model <> 0
  group by t.model order by count(*) desc limit 1;
  center := (
    select extensions.avg(t.embedding) from memory.search_texts t
    where t.organization_id = p_org and t.scope = p_scope and t.model = kind and t.place % greatest(1, n / 5000) = 0);
  -- Cells of another kind of vector than most have now are of no use.
  update memory.search_scopes s
  set counted = n > 500, mean = center, model = coalesce(kind, 0), cells = case when s.model = kind then s.cells else 0 end
  where s.organization_id = p_org and s.scope = p_scope;
end $$;
