-- The next texts of an archive that were not compared yet, each with up to five texts before it that have many words in common with
-- it; a row without another where there is none.
--
-- What bounds the work of a text, whatever the size of the archive: of its words those 64 with the smallest numbers, which texts of
-- the same words share, and of each word the newest 50 texts that have it. Locks: none.
create or replace function memory.list_similar(p_org text, p_archive text, p_after integer, p_most integer)
returns table (
  place integer, id text, said text, created_at timestamptz, waiting boolean, written_at timestamptz,
  other_place integer, other_id text, other_said text, other_created_at timestamptz, similarity float8
) language sql stable set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
  select t.place, p.id, p.text, p.created_at, p.pending, p.updated_at, o.place, q.id, q.text, q.created_at,
    case when t.model <> 0 and t.model = o.model then 1 - (t.embedding operator(extensions.<=>) o.embedding) end
  from memory.search_scopes s
  join lateral (
    select x.* from memory.search_texts x
    where x.organization_id = p_org and x.scope = s.scope and x.place > p_after order by x.place limit p_most) t on true
  join memory.passages p on p.organization_id = p_org and p.archive_id = p_archive and p.id = t.passage_id
  left join lateral (
    select h.place from (
      select w.term from unnest(t.terms) w (term) order by w.term limit 64) w
    cross join lateral (
      select g.place from memory.search_postings g
      where g.organization_id = p_org and g.scope = s.scope and g.term = w.term and g.place < t.place
      order by g.place desc limit 50) h
    group by h.place having count(*) >= 0.4 * least(64, cardinality(t.terms)) order by count(*) desc, h.place desc limit 5) c on true
  left join memory.search_texts o on o.organization_id = p_org and o.scope = s.scope and o.place = c.place
  left join memory.passages q on q.organization_id = p_org and q.archive_id = p_archive and q.id = o.passage_id
  where s.organization_id = p_org and s.owner_id = p_archive
  order by t.place, o.place desc
$$;
