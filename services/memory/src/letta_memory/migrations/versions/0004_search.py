"""Search of passages and messages, by words and by meaning, and the writing of passages.

Words: an OR query, each term weighted by how rare it is. Meaning: exact cosine distance within the scope. The scores of
each lane are stretched to 0..1 and added. Plans are made for each call: a plan for one archive is wrong for another.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

STEP_INDEX = """
create index messages_by_step on memory.messages (organization_id, step_id, seq) where step_id is not null;
"""

WORDS = """
-- The words of a text as a query that any one of them satisfies.
create function memory.any_word(p_text text) returns tsquery language sql immutable as $$
  select replace(plainto_tsquery('pg_catalog.english', p_text)::text, ' & ', ' | ')::tsquery
$$;

create function memory.term_of(p_lexeme text) returns tsquery language sql immutable as $$
  select ('''' || replace(replace(p_lexeme, '\\', '\\\\'), '''', '''''') || '''')::tsquery
$$;
"""

LANES = """
  matches as materialized (
    select s.id, s.words from {table} s where {scope} and p_mode <> 1 and s.words @@ any_of {cap}),
  terms as (
    select memory.term_of(t.lexeme) as term from unnest(to_tsvector('pg_catalog.english', p_query)) t),
  weights as (
    select t.term, ln(1 + (greatest(total, count(*)) - count(*) + 0.5) / (count(*) + 0.5)) as weight
    from terms t join matches m on m.words @@ t.term group by t.term),
  by_word as (
    select m.id, sum(w.weight * ts_rank(m.words, w.term, 1)) as score
    from matches m join weights w on m.words @@ w.term group by m.id order by score desc limit 200),
  by_meaning as (
    select s.id, 1 - (s.embedding operator(extensions.<=>) p_vector) as score
    from {table} s
    where {scope} and p_mode <> 2 and p_vector is not null and s.embedding is not null and s.embedder = p_embedder
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
"""

_PASSAGE_SCOPE = """s.organization_id = p_org and s.archive_id = p_archive
      and (p_tags is null or case when p_all then s.tags @> p_tags else s.tags && p_tags end)
      and (p_from is null or s.created_at >= p_from) and (p_to is null or s.created_at <= p_to)"""

_PASSAGE_LANES = LANES.format(table="memory.passages", scope=_PASSAGE_SCOPE, cap="")

PASSAGES = f"""
create type memory.passage_hit as (score float8, word_place integer, meaning_place integer, passage memory.passages);

create function memory.search_passages(
  p_org text, p_archive text, p_query text, p_vector extensions.halfvec, p_embedder text, p_mode smallint,
  p_tags text[], p_all boolean, p_from timestamptz, p_to timestamptz, p_limit integer
) returns setof memory.passage_hit language plpgsql stable set plan_cache_mode = force_custom_plan as $$
declare
  any_of tsquery := memory.any_word(p_query);
  total bigint := (select a.passage_count from memory.archives a where a.organization_id = p_org and a.id = p_archive);
begin
  if p_query <> '' then
    return query with {_PASSAGE_LANES}
      select f.score::float8, f.word_place::integer, f.meaning_place::integer, p
      from fused f join memory.passages p on p.organization_id = p_org and p.archive_id = p_archive and p.id = f.id
      order by f.score desc, p.created_at desc, p.id limit p_limit;
    if found or p_mode = 1 then
      return;
    end if;
  end if;
  return query select 0::float8, null::integer, null::integer, s from memory.passages s
    where {_PASSAGE_SCOPE} and (p_query = '' or strpos(lower(s.text), lower(p_query)) > 0)
    order by s.created_at desc, s.id desc limit p_limit;
end $$;
"""

_MESSAGE_SCOPE = """s.organization_id = p_org and s.search <> ''
      and (p_agent is null or s.agent_id = p_agent) and (p_conversation is null or s.conversation_id = p_conversation)
      and (p_roles is null or s.role = any(p_roles)) and (p_types is null or s.types & p_types <> 0)
      and (p_from is null or s.created_at >= p_from) and (p_to is null or s.created_at <= p_to)"""

_MESSAGE_LANES = LANES.format(
    table="memory.messages", scope=_MESSAGE_SCOPE, cap="order by s.created_at desc limit 5000"
)

MESSAGES = f"""
create type memory.message_hit as (
  score float8, word_place integer, meaning_place integer, id text, agent_id text, conversation_id text,
  created_at timestamptz, body bytea);

create function memory.search_messages(
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
    return query with {_MESSAGE_LANES}
      select f.score::float8, f.word_place::integer, f.meaning_place::integer, m.id, m.agent_id, m.conversation_id,
        m.created_at, m.body
      from fused f join memory.messages m on m.organization_id = p_org and m.id = f.id
      order by f.score desc, m.created_at desc, m.id limit p_limit;
    if found or p_mode = 1 then
      return;
    end if;
  end if;
  return query
    select 0::float8, null::integer, null::integer, s.id, s.agent_id, s.conversation_id, s.created_at, s.body
    from memory.messages s where {_MESSAGE_SCOPE} and (p_query = '' or strpos(lower(s.search), lower(p_query)) > 0)
    order by s.created_at desc, s.id desc limit p_limit;
end $$;
"""

WRITE = """
create type memory.passage_row as (status smallint, archive_embedder text, passage memory.passages);

-- Writes passages to an archive, or to an agent's, which is made the first time. Status 1: no archive, 2: no agent.
-- A vector is kept when the archive's embedder made it; otherwise the passage waits to be embedded.
create function memory.write_passages(
  p_org text, p_user text, p_agent text, p_archive text, p_new_archive text, p_now timestamptz, p_embedder text,
  p_ids text[], p_texts text[], p_metadata text[], p_tags text[], p_times timestamptz[], p_vectors extensions.halfvec[]
) returns setof memory.passage_row language plpgsql as $$
declare
  a memory.archives;
  r memory.passage_row;
  agent_name text;
  n bigint;
begin
  r.status := 0;
  if p_archive is null then
    select g.name into agent_name from memory.agents g where g.organization_id = p_org and g.id = p_agent for share;
    if agent_name is null then
      r.status := 2;
      return next r;
      return;
    end if;
    select l.archive_id into p_archive from memory.archive_agents l
    where l.organization_id = p_org and l.agent_id = p_agent;
    if p_archive is null then
      insert into memory.archives (
        organization_id, id, name, owner_agent_id, created_by_id, last_updated_by_id, created_at, updated_at)
      values (p_org, p_new_archive, agent_name || '''s Archive', p_agent, p_user, p_user, p_now, p_now)
      on conflict do nothing;
      insert into memory.archive_agents (organization_id, agent_id, archive_id)
      values (p_org, p_agent, p_new_archive) on conflict (organization_id, agent_id) do nothing;
      select l.archive_id into p_archive from memory.archive_agents l
      where l.organization_id = p_org and l.agent_id = p_agent;
    end if;
  end if;
  select * into a from memory.archives t where t.organization_id = p_org and t.id = p_archive for no key update;
  if not found then
    r.status := 1;
    return next r;
    return;
  end if;
  if a.embedder = '' and p_embedder <> '' then
    a.embedder := p_embedder;
    a.dimensions := (
      select extensions.vector_dims(v.vector) from unnest(p_vectors) v (vector) where v.vector is not null limit 1);
  end if;
  insert into memory.passages (
    organization_id, archive_id, id, text, tags, metadata, created_by_id, last_updated_by_id, created_at, updated_at,
    pending, embedding, embedder)
  select p_org, a.id, i.id, i.text, (select array_agg(t.tag) from jsonb_array_elements_text(i.tags::jsonb) t (tag)),
    i.metadata, p_user, p_user, i.created_at, p_now, i.vector is null or a.embedder <> p_embedder,
    case when a.embedder = p_embedder then i.vector end, a.embedder
  from unnest(p_ids, p_texts, p_metadata, p_tags, p_times, p_vectors) i (id, text, metadata, tags, created_at, vector)
  on conflict do nothing;
  get diagnostics n = row_count;
  if n > 0 then
    update memory.archives t
    set passage_count = t.passage_count + n, embedder = a.embedder, dimensions = a.dimensions
    where t.organization_id = p_org and t.id = a.id;
  end if;
  return query
    select 0::smallint, a.embedder, p
    from unnest(p_ids) with ordinality i (id, place)
    join memory.passages p on p.organization_id = p_org and p.id = i.id order by i.place;
end $$;
"""


def upgrade() -> None:
    """Make the functions."""
    for statements in (STEP_INDEX, WORDS, PASSAGES, MESSAGES, WRITE):
        op.execute(statements)
