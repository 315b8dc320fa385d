-- The messages that fit best, by words and by meaning; as memory.search_passages, over the newest 5,000 with any of the words.
--
-- Null in p_agent, p_conversation, p_roles, p_types (bits), p_from or p_to: any. Locks: none.
create or replace function memory.search_messages(
  p_org text, p_agent text, p_conversation text, p_roles smallint[], p_types integer, p_query text,
  p_vector extensions.halfvec, p_embedder text, p_mode smallint, p_from timestamptz, p_to timestamptz, p_limit integer
) returns setof memory.message_hit language plpgsql stable set plan_cache_mode = force_custom_plan as $$
declare
  any_of tsquery := memory.any_word(p_query);
  total bigint := (
    select coalesce(sum(c.message_count), 0) from memory.conversations c
    where c.organization_id = p_org and (p_agent is null or c.agent_id = p_agent)
      and (p_conversation is null or c.id = p_conversation));
begin
  if p_query <> '' then
    return query with
  matches as materialized (
    select s.id, s.words from memory.messages s where s.organization_id = p_org and s.search <> ''
      and (p_agent is null or s.agent_id = p_agent) and (p_conversation is null or s.conversation_id = p_conversation)
      and (p_roles is null or s.role = any(p_roles)) and (p_types is null or s.types & p_types <> 0)
      and (p_from is null or s.created_at >= p_from) and (p_to is null or s.created_at <= p_to)
      and p_mode <> 1 /* SearchMode.VECTOR */ and s.words @@ any_of order by s.created_at desc limit 5000),
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
    from memory.messages s
    where s.organization_id = p_org and s.search <> ''
      and (p_agent is null or s.agent_id = p_agent) and (p_conversation is null or s.conversation_id = p_conversation)
      and (p_roles is null or s.role = any(p_roles)) and (p_types is null or s.types & p_types <> 0)
      and (p_from is null or s.created_at >= p_from) and (p_to is null or s.created_at <= p_to)
      and p_mode <> 2 /* SearchMode.FTS */ and p_vector is not null and s.embedding is not null
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
      select f.score::float8, f.word_place::integer, f.meaning_place::integer, m.id, m.agent_id, m.conversation_id,
        m.created_at, m.body
      from fused f join memory.messages m on m.organization_id = p_org and m.id = f.id
      order by f.score desc, m.created_at desc, m.id limit p_limit;
    if found or p_mode = 1 /* SearchMode.VECTOR */ then
      return;
    end if;
  end if;
  return query
    select 0::float8, null::integer, null::integer, s.id, s.agent_id, s.conversation_id, s.created_at, s.body
    from memory.messages s where s.organization_id = p_org and s.search <> ''
      and (p_agent is null or s.agent_id = p_agent) and (p_conversation is null or s.conversation_id = p_conversation)
      and (p_roles is null or s.role = any(p_roles)) and (p_types is null or s.types & p_types <> 0)
      and (p_from is null or s.created_at >= p_from) and (p_to is null or s.created_at <= p_to)
      and (p_query = '' or strpos(lower(s.search), lower(p_query)) > 0)
    order by s.created_at desc, s.id desc limit p_limit;
end $$;
