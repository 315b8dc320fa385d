-- The texts of some scopes that fit a query best: by words (BM25 over postings), by meaning (distance to the query's vectors, less
-- the mean of the scope), and by the words around them.
--
-- p_models has the number of each vector's kind (model_of); p_new the postings of texts that are in no table yet, under keys of
-- their own. Of a filter, kept and places bound each of the scopes, in their order. A key is scope << 32 | place. score is relative to
-- the best; the places count from 1; docs/adr/0019 has the reasons and the figures. Words that no text has count as those that they are
-- like (like_words), for less; what was found by these says so.
-- What bounds a search: 64 words, 8,000 postings in a large scope, the nearest cells with some 3,000 vectors of each that has
-- cells, and twice p_limit texts of a lane (at least 60).
-- A bigint is hashed by its halves, one XOR the other, which keys of many scopes have in common: the scope is hashed with them.
-- Plans are made once, maybe when there is nothing yet, so each access is by a key and arrays, and joins are hash joins.
-- Locks: none.
create or replace function memory.find_texts(
  p_org text, p_scopes integer[], p_words memory.asked_word[], p_vectors extensions.halfvec[], p_models integer[], p_by_words boolean,
  p_filter memory.text_filter, p_new memory.new_posting[], p_limit integer
) returns setof memory.text_hit language plpgsql stable rows 50
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = on set enable_nestloop = off
set enable_mergejoin = off set jit = off as $$
declare
  depth integer := least(greatest(60, p_limit * 2), 1000);
  texts bigint;
  mean_words float8;
  untidy boolean;
  narrowed boolean;
  partial boolean;
  counted boolean;
  kind integer;
  looked_at integer := 3000;
  asked_way extensions.halfvec;
  shift float8;
  asked integer[];
  missing integer[];
  likes memory.like_word[] := '{}';
  sought integer[] := '{}';
  weights real[] := '{}';
  kept bigint[];
  center extensions.halfvec;
  models integer[] := '{}';
  centers extensions.halfvec[] := '{}';
  offsets float8[] := '{}';
  nearest bigint[] := '{}';
  likeness float8[] := '{}';
  found_keys bigint[];
  found_scores float8[];
  -- Of BM25, with k1 0.9 and b 0.4, as numbers of the processor: those of SQL cost twenty times as much.
  top constant float8 := 1.9;
  base constant float8 := 0.54;
  slope float8;
  talk float8;
  part record;
begin
  select coalesce(sum(s.text_count), 0), coalesce(sum(s.word_count), 0), coalesce(bool_or(s.untidy), false),
    coalesce(bool_and(s.counted or s.text_count < 100), false)
  into texts, mean_words, untidy, counted
  from memory.search_scopes s where s.organization_id = p_org and s.scope = any(p_scopes);
  if cardinality(p_new) > 0 then
    select texts + count(*), mean_words + sum(d.words) into texts, mean_words
    from (select n.key, max(n.words) as words from unnest(p_new) n where n.key < 0 group by 1) d;
  end if;
  mean_words := greatest(1, coalesce(mean_words, 0) / greatest(texts, 1));
  slope := 0.36 / mean_words;
  talk := least(1, 40 / mean_words);
  narrowed := p_filter.conversation_id is not null or p_filter.roles is not null or p_filter.types is not null
    or p_filter.tags is not null or p_filter.since is not null or p_filter.until is not null
    or p_filter.places is not null;
  partial := untidy or narrowed;
  -- Of what is looked at, a filter leaves a part.
  if narrowed then
    looked_at := 6000;
  end if;
  asked := array(select distinct hashtext(w.stem) from unnest(p_words) w);
  if p_by_words then
    select w.terms, w.weights, w.missing into sought, weights, missing
    from memory.weigh_words(p_org, p_scopes, asked, p_new, texts, counted) w;
  end if;
  if cardinality(missing) > 0 then
    likes := array(
      select l from memory.like_words(
        -- Words of which no text has any stem.
        p_org, p_scopes, array(
          select w from unnest(p_words) w where w.word <> all(array(
            select f.word from unnest(p_words) f where hashtext(f.stem) <> all(missing))))) l
      where l.term <> all(asked));
    select sought || array_agg(w.term), weights || array_agg(w.weight * l.likeness) into sought, weights
    from (
      select u.term, u.weight from memory.weigh_words(
        p_org, p_scopes, array(select distinct l.term from unnest(likes) l), null, texts, counted) x
      cross join lateral unnest(x.terms, x.weights) u (term, weight)) w
    join (select y.term, max(y.likeness) as likeness from unnest(likes) y group by 1) l on l.term = w.term;
  end if;
  if partial then
    kept := array(
      select t.scope::bigint << 32 | t.place from memory.search_texts t
      where t.organization_id = p_org and t.scope = any(p_scopes) and t.place = any(array(
          select p.place from memory.search_postings p
          where p.organization_id = p_org and p.scope = any(p_scopes) and p.term = any(sought)
          union select (e.key & 4294967295)::integer from unnest(p_new) e where e.key >= 0))
        and (p_filter.conversation_id is null or t.conversation_id = p_filter.conversation_id)
        and (p_filter.roles is null or t.role = any(p_filter.roles))
        and (p_filter.types is null or t.types & p_filter.types <> 0)
        and (p_filter.tags is null
          or case when p_filter.all_tags then t.tags @> p_filter.tags else t.tags && p_filter.tags end)
        and (p_filter.since is null or t.created_at >= p_filter.since)
        and (p_filter.until is null or t.created_at <= p_filter.until)
        and (p_filter.places is null or (t.created_at >= p_filter.kept[array_position(p_scopes, t.scope)]
          and t.place >= p_filter.places[array_position(p_scopes, t.scope)])));
  end if;
  for i in 1 .. coalesce(cardinality(p_vectors), 0) loop
    kind := p_models[i];
    center := (
      select extensions.avg(s.mean) from memory.search_scopes s
      where s.organization_id = p_org and s.scope = any(p_scopes) and s.model = kind and s.mean is not null);
    if center is null then
      center := (
        select extensions.avg(x.embedding) from (
          select t.embedding from memory.search_texts t
          where t.organization_id = p_org and t.scope = any(p_scopes) and t.model = kind limit 64) x);
    end if;
    continue when center is null;
    asked_way := p_vectors[i] operator(extensions.-) center;
    shift := center operator(extensions.<#>) asked_way;
    models := models || kind;
    centers := centers || asked_way;
    offsets := offsets || shift;
    -- Scopes without cells, all at once, and each with cells for itself: its own cells are near the query.
    for part in
      select array_agg(s.scope) filter (where s.cells = 0 or s.model <> kind) as scopes, 0 as cells
      from memory.search_scopes s where s.organization_id = p_org and s.scope = any(p_scopes)
      union all select array[s.scope], greatest(16, looked_at::bigint * s.cells / greatest(s.text_count, 1))
      from memory.search_scopes s
      where s.organization_id = p_org and s.scope = any(p_scopes) and s.cells > 0 and s.model = kind
    loop
      if part.cells > 0 then
        select array_agg(z.scope::bigint << 32 | z.place), array_agg(shift - z.distance) into found_keys, found_scores from (
          select t.scope, t.place, t.embedding operator(extensions.<#>) asked_way as distance
          from memory.search_texts t
          where t.organization_id = p_org and t.scope = any(part.scopes) and t.model = kind
            and t.cell >= -1 and t.cell = any(array(
              select l.cell from memory.search_cells l where l.organization_id = p_org and l.scope = any(part.scopes)
              order by l.centre operator(extensions.<#>) asked_way limit part.cells) || -1::smallint)
            and (not narrowed or (
              (p_filter.conversation_id is null or t.conversation_id = p_filter.conversation_id)
              and (p_filter.roles is null or t.role = any(p_filter.roles))
              and (p_filter.types is null or t.types & p_filter.types <> 0)
              and (p_filter.tags is null
                or case when p_filter.all_tags then t.tags @> p_filter.tags else t.tags && p_filter.tags end)
              and (p_filter.since is null or t.created_at >= p_filter.since)
              and (p_filter.until is null or t.created_at <= p_filter.until)
              and (p_filter.places is null or (t.created_at >= p_filter.kept[array_position(p_scopes, t.scope)]
                and t.place >= p_filter.places[array_position(p_scopes, t.scope)]))))
          order by distance limit depth) z;
      else
        select array_agg(z.scope::bigint << 32 | z.place), array_agg(shift - z.distance) into found_keys, found_scores from (
          select t.scope, t.place, t.embedding operator(extensions.<#>) asked_way as distance
          from memory.search_texts t
          where t.organization_id = p_org and t.scope = any(part.scopes) and t.model = kind
            and (not narrowed or (
              (p_filter.conversation_id is null or t.conversation_id = p_filter.conversation_id)
              and (p_filter.roles is null or t.role = any(p_filter.roles))
              and (p_filter.types is null or t.types & p_filter.types <> 0)
              and (p_filter.tags is null
                or case when p_filter.all_tags then t.tags @> p_filter.tags else t.tags && p_filter.tags end)
              and (p_filter.since is null or t.created_at >= p_filter.since)
              and (p_filter.until is null or t.created_at <= p_filter.until)
              and (p_filter.places is null or (t.created_at >= p_filter.kept[array_position(p_scopes, t.scope)]
                and t.place >= p_filter.places[array_position(p_scopes, t.scope)]))))
          order by distance limit depth) z;
      end if;
      nearest := nearest || found_keys;
      likeness := likeness || found_scores;
    end loop;
  end loop;
  return query
  with matches as materialized (
    select p.scope::bigint << 32 | p.place as key, p.term,
      i.weight * (p.uses * top / (p.uses + base + slope * p.words)) as score
    from memory.search_postings p join unnest(sought, weights) i (term, weight) on i.term = p.term
    where p.organization_id = p_org and p.scope = any(p_scopes) and p.term = any(sought)
    union all
    select e.key, e.term, i.weight * (e.uses * top / (e.uses + base + slope * e.words))
    from unnest(p_new) e join unnest(sought, weights) i (term, weight) on i.term = e.term),
  by_word as materialized (
    select m.key, sum(m.score) as score from matches m
    where not partial or m.key < 0 or (m.key, m.key >> 32) in (select k.key, k.key >> 32 from unnest(kept) k (key))
    group by m.key, m.key >> 32 order by 2 desc, 1 desc limit depth),
  by_meaning as materialized (
    select v.key, v.score from unnest(nearest, likeness) v (key, score) order by 2 desc, 1 desc limit depth),
  candidates as materialized (select w.key from by_word w union select v.key from by_meaning v),
  around as materialized (
    -- For each word the best of the texts from three before to three after: what was talked of then.
    select g.key, sum(g.own) as own, sum(g.best) as best from (
      select n.key, m.term, max(m.score) as best, max(case when m.key = n.key then m.score end) as own
      from (select c.key, c.key + o as beside from candidates c cross join generate_series(-3, 3) o) n
      join matches m on m.key = n.beside and m.key >> 32 = n.beside >> 32 group by 1, 2) g
    group by 1),
  stored as materialized (
    select t.scope::bigint << 32 | t.place as key, t.speaker, t.role, t.words,
      q.distance - (t.embedding operator(extensions.<#>) q.center) as likeness
    from memory.search_texts t left join unnest(models, centers, offsets) q (model, center, distance) on q.model = t.model
    where t.organization_id = p_org and t.scope = any(p_scopes)
      and t.place = any(array(select (c.key & 4294967295)::integer from candidates c where c.key >= 0))),
  asked_for as (
    -- Who is named in the question, if it is one alone of those who speak here.
    select min(s.speaker) as speaker from stored s join candidates c on c.key = s.key where s.speaker = any(asked)
    having count(distinct s.speaker) = 1),
  facts as materialized (
    select c.key, coalesce(a.own, 0) as own, coalesce(a.best, 0) as best, coalesce(s.likeness, 0) as likeness,
      case when s.speaker = f.speaker then float8 '0.2' else 0 end
        - case when coalesce(s.role, e.role) = 3 /* MessageRole.ASSISTANT */ then float8 '0.4' else 0 end
        - float8 '0.15' * greatest(0, ln(greatest(coalesce(s.words, e.words), 1)::float8 / 60)) as prior
    from candidates c left join around a on a.key = c.key left join stored s on s.key = c.key and s.key >> 32 = c.key >> 32
    left join (select n.key, max(n.role) as role, max(n.words) as words from unnest(p_new) n where n.key < 0 group by 1) e
      on e.key = c.key
    left join asked_for f on true
    where c.key < 0 or s.key is not null),
  lanes as materialized (
    select f.key, f.prior, coalesce(f.own / nullif(max(f.own) over (), 0), 0) as own,
      coalesce(f.likeness / nullif(greatest(max(f.likeness) over (), 0), 0), 0) as likeness,
      talk * coalesce(f.best / nullif(max(f.best) over (), 0), 0) as best
    from facts f),
  fused as materialized (select l.*, l.own + float8 '0.6' * l.likeness + l.best as score from lanes l),
  smoothed as materialized (
    select f.key, f.own, f.likeness, f.prior + f.score + float8 '0.15' * talk * (
      coalesce(case when lag(f.key) over o = f.key - 1 then lag(f.score) over o end, 0)
      + coalesce(case when lead(f.key) over o = f.key + 1 then lead(f.score) over o end, 0)) as score
    from fused f window o as (order by f.key)),
  alike as materialized (
    select m.key, array_agg(distinct l.word) as words from unnest(likes) l join matches m on m.term = l.term group by 1)
  select s.key, greatest(0, coalesce(s.score / nullif(greatest(max(s.score) over (), 0), 0), 0))::float8,
    w.place::integer, v.place::integer, s.own::float8, s.likeness::float8, a.words
  from smoothed s
  left join alike a on a.key = s.key
  left join (select b.key, row_number() over (order by b.score desc, b.key desc) as place from by_word b) w on w.key = s.key
  left join (select b.key, row_number() over (order by b.score desc, b.key desc) as place from by_meaning b) v on v.key = s.key
  order by s.score desc, s.key desc limit p_limit;
end $$;
