-- The passages of an archive that fit best, by words and by meaning.
--
-- Words: an OR query, each term weighted by how rare it is. Meaning: exact cosine distance within the archive. The scores of
-- each lane are stretched to 0..1 and added. Without a hit by words or meaning: those that contain the query, newest first.
-- Plans are made for each call: a plan for one archive is wrong for another. Locks: none.
create or replace function memory.search_passages(
  p_org text, p_archive text, p_query text, p_vector extensions.halfvec, p_embedder text,
  p_tags text[], p_all boolean, p_from timestamptz, p_to timestamptz, p_limit integer
) returns setof memory.passage_hit language plpgsql stable set plan_cache_mode = force_custom_plan as $$
declare
  any_of tsquery := memory.any_word(p_query);
  total bigint := (select a.passage_count from memory.archives a where a.organization_id = p_org and a.id = p_archive);
begin
  if p_query <> '' then
    return query with
  matches as materialized (
    select s.id, s.words from memory.passages s where s.organization_id = p_org and s.archive_id = p_archive
      and (p_tags is null or case when p_all then s.tags @> p_tags else s.tags && p_tags end)
      and (p_from is null or s.created_at >= p_from) and (p_to is null or s.created_at <= p_to)
      and s.words @@ any_of),
  terms as (
    select memory.term_of(t.lexeme) as term from unnest(to_tsvector('pg_catalog.english', p_query)) t),
  weights as (
    -- BM25's weight of rare words. The total is a counter beside the rows; greatest() keeps ln defined if it lags.
    select t.term, ln(1 + (greatest(total, count(*)) - count(*) + 0.5) / (count(*) + 0.5)) as weight
    from terms t join matches m on m.words @@ t.term group by t.term),
  by_word as (
    -- 1 divides by the logarithm of the length, so that long texts do not win by size alone.
    select m.id, sum(w.weight * ts_rank(m.words, w.term, 1)) as score
    from matches m join weights w on m.words @@ w.term group by m.id order by score desc limit 200),
  by_meaning as (
    select s.id, 1 - (s.embedding operator(extensions.<=>) p_vector) as score
    from memory.passages s
    where s.organization_id = p_org and s.archive_id = p_archive
      and (p_tags is null or case when p_all then s.tags @> p_tags else s.tags && p_tags end)
      and (p_from is null or s.created_at >= p_from) and (p_to is null or s.created_at <= p_to)
      and p_vector is not null and s.embedding is not null
      -- The operator fails on vectors of unequal length, and those of another embedder mean nothing here.
      and s.embedder = p_embedder and extensions.vector_dims(s.embedding) = extensions.vector_dims(p_vector)
    order by score desc limit 200),
  word_lane as (
    select b.id, row_number() over (order by b.score desc, b.id) as place,
      coalesce((b.score - min(b.score) over ()) / nullif(max(b.score) over () - min(b.score) over (), 0), 1) as score
    from by_word b),
  meaning_lane as (
    select b.id, row_number() over (order by b.score desc, b.id) as place,
      coalesce((b.score - min(b.score) over ()) / nullif(max(b.score) over () - min(b.score) over (), 0), 1) as score
    from by_meaning b),
  fused as (
    select coalesce(w.id, m.id) as id, w.place as word_place, m.place as meaning_place,
      (coalesce(w.score, 0) + coalesce(m.score, 0))
        / ((exists (select from word_lane))::integer + (exists (select from meaning_lane))::integer) as score
    from word_lane w full join meaning_lane m on m.id = w.id)
      select f.score::float8, f.word_place::integer, f.meaning_place::integer, p
      from fused f join memory.passages p on p.organization_id = p_org and p.archive_id = p_archive and p.id = f.id
      order by f.score desc, p.created_at desc, p.id limit p_limit;
    if found then
      return;
    end if;
  end if;
  return query select 0::float8, null::integer, null::integer, s from memory.passages s
    where s.organization_id = p_org and s.archive_id = p_archive
      and (p_tags is null or case when p_all then s.tags @> p_tags else s.tags && p_tags end)
      and (p_from is null or s.created_at >= p_from) and (p_to is null or s.created_at <= p_to)
      and (p_query = '' or strpos(lower(s.text), lower(p_query)) > 0)
    order by s.created_at desc, s.id desc limit p_limit;
end $$;
