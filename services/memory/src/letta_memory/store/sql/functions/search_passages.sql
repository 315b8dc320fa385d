-- The passages of some archives that fit best, by words and by meaning, as memory.find_texts finds them.
--
-- p_vectors: the query as each of the embedders p_embedders reads it. Without a hit by words or meaning: those that contain the
-- query, newest first; so it is also without a query. What the archives do not keep at p_now is left out. Locks: none.
create or replace function memory.search_passages(
  p_org text, p_archives text[], p_query text, p_vectors extensions.halfvec[], p_embedders text[], p_embeddings boolean,
  p_tags text[], p_all boolean, p_from timestamptz, p_to timestamptz, p_newest boolean, p_limit integer,
  p_now timestamptz
) returns setof memory.passage_hit language plpgsql stable
set plan_cache_mode = force_generic_plan set enable_seqscan = off
set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  scopes integer[];
  untidy boolean;
  fresh memory.new_posting[];
  languages integer;
  asked memory.asked_word[];
  owners text[];
  since timestamptz[];
  places integer[];
begin
  select array_agg(s.scope), array_agg(s.owner_id), bool_or(s.untidy), bit_or(s.languages) into scopes, owners, untidy, languages
  from memory.search_scopes s where s.organization_id = p_org and s.owner_id = any(p_archives);
  if exists (
    select from memory.archives a where a.organization_id = p_org and a.id = any(p_archives)
      and (a.max_age is not null or a.max_passages is not null))
  then
    select array_agg(memory.kept_since(p_org, o.id, p_now) order by o.n), array_agg(memory.kept_place(p_org, o.id) order by o.n)
    into since, places from unnest(owners) with ordinality o (id, n);
  end if;
  if p_query <> '' then
    asked := array(select w from memory.query_words(p_query, case when untidy then -1 else languages end) w);
    if untidy then
      fresh := array(
        select (t.scope::bigint << 32 | t.place, hashtext(u.lexeme), cardinality(u.positions),
          least(length(w.words), 32767), 0)::memory.new_posting
        from memory.search_texts t
        join memory.passages p on p.organization_id = p_org and p.id = t.passage_id
        cross join lateral memory.text_words(p.text, t.created_at) w
        cross join lateral unnest(w.words) u
        where t.organization_id = p_org and t.scope = any(scopes) and not t.posted
          and u.lexeme = any(array(select w.stem from unnest(asked) w)));
    end if;
    return query
      select h.score, h.word_place, h.meaning_place, h.word_score, h.meaning_score, l.p,
        case when p_embeddings then t.embedding end, h.approximate_words
      from memory.find_texts(
        p_org, scopes, asked, p_vectors,
        array(select memory.model_of(v.embedder, v.vector) from unnest(p_vectors, p_embedders) v (vector, embedder)), true,
        (null, null, null, p_tags, p_all, p_from, p_to, since, places)::memory.text_filter, fresh, p_limit) h
      -- One by one, by the whole key: what a plan makes of a join depends on what is known of the tables.
      cross join lateral (
        select y.passage_id, y.embedding from memory.search_texts y
        where y.organization_id = p_org and y.scope = h.key >> 32 and y.place = h.key & 4294967295 limit 1) t
      cross join lateral (
        select y from memory.passages y
        where y.organization_id = p_org and y.id = t.passage_id and y.archive_id = any(p_archives) limit 1) l (p)
      -- Chunks of deleted files are removed in the background.
      where (l.p).file_id is null or exists (
        select from memory.files f where f.organization_id = p_org and f.id = (l.p).file_id and f.deleted_at is null)
      order by case when p_newest then (l.p).created_at end desc, h.score desc, (l.p).created_at desc, (l.p).id;
    if found then
      return;
    end if;
  end if;
  return query
    select 0::float8, null::integer, null::integer, null::float8, null::float8, p,
      case when p_embeddings then (
        select t.embedding from memory.search_texts t
        where t.organization_id = p_org and t.scope = p.scope and t.place = p.place) end, null::text[]
    from memory.passages p
    where p.organization_id = p_org and p.archive_id = any(p_archives)
      and (p_tags is null or case when p_all then p.tags @> p_tags else p.tags && p_tags end)
      and (p_from is null or p.created_at >= p_from) and (p_to is null or p.created_at <= p_to)
      and (places is null or (p.created_at >= since[array_position(owners, p.archive_id)]
        and p.place >= places[array_position(owners, p.archive_id)]))
      and (p_query = '' or strpos(lower(p.text), lower(p_query)) > 0)
      and (p.file_id is null or exists (
        select from memory.files f where f.organization_id = p_org and f.id = p.file_id and f.deleted_at is null))
    order by p.created_at desc, p.id desc limit p_limit;
end $$;
