-- The messages that fit best, by words and by meaning, as memory.find_texts finds them, with those that are not indexed yet.
--
-- Null in p_agent, p_conversation, p_roles, p_types (bits), p_from or p_to: any. Locks: none.
create or replace function memory.search_messages(
  p_org text, p_agent text, p_conversation text, p_roles smallint[], p_types integer, p_query text,
  p_vectors extensions.halfvec[], p_embedders text[], p_mode smallint, p_from timestamptz, p_to timestamptz, p_newest boolean,
  p_limit integer
) returns setof memory.message_hit language plpgsql stable
set plan_cache_mode = force_generic_plan set enable_seqscan = off
set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  scopes integer[];
  late text[];
  positions bigint[];
  conversations text[];
  seqs bigint[];
  fresh memory.new_posting[];
  any_of tsquery := memory.any_word(p_query);
  languages integer;
  fresh_languages integer;
  asked memory.asked_word[];
  ends bigint[];
  roles smallint[];
  said tsvector[];
begin
  if p_query <> '' then
    p_agent := coalesce(p_agent, (
      select c.agent_id from memory.conversations c where c.organization_id = p_org and c.id = p_conversation));
    if p_agent is null then
      scopes := array(
        select s.scope from memory.search_scopes s where s.organization_id = p_org and starts_with(s.owner_id, 'agent-'));
      select array_agg(c.id), array_agg(coalesce(x.seq, 0)), array_agg(c.next_seq) into late, positions, ends
      from memory.conversations c
      left join memory.search_positions x on x.organization_id = c.organization_id and x.conversation_id = c.id
      where c.organization_id = p_org and c.next_seq - 1 > coalesce(x.seq, 0) and p_conversation is null;
    else
      scopes := array(
        select s.scope from memory.search_scopes s where s.organization_id = p_org and s.owner_id = p_agent);
      select array_agg(c.id), array_agg(coalesce(x.seq, 0)), array_agg(c.next_seq) into late, positions, ends
      from memory.conversations c
      left join memory.search_positions x on x.organization_id = c.organization_id and x.conversation_id = c.id
      where c.organization_id = p_org and c.agent_id = p_agent and c.next_seq - 1 > coalesce(x.seq, 0)
        and (p_conversation is null or c.id = p_conversation);
    end if;
    if late is not null and p_mode <> 1 /* SearchMode.VECTOR */ then
      -- The last ones as they are going to be indexed. Before them, where nothing is indexed for long, those with an English stem.
      select array_agg(f.conversation_id order by f.at desc, f.seq desc), array_agg(f.seq order by f.at desc, f.seq desc),
        array_agg(f.role order by f.at desc, f.seq desc), array_agg(f.words order by f.at desc, f.seq desc),
        coalesce(bit_or(f.language), 0)
      into conversations, seqs, roles, said, fresh_languages
      from unnest(late, positions, ends) l (id, seq, next) cross join lateral (
        select s.conversation_id, s.seq, s.role, s.created_at as at, w.words, w.language
        from memory.messages s cross join lateral (
          select t.words, t.language from memory.text_words(s.search, s.created_at) t
          where s.seq >= l.next - greatest(1, 200 / cardinality(late))
          union all select s.words, 2 where s.seq < l.next - greatest(1, 200 / cardinality(late)) and s.words @@ any_of) w
        where s.organization_id = p_org and s.conversation_id = l.id and s.seq > l.seq and s.search <> ''
          and (p_roles is null or s.role = any(p_roles)) and (p_types is null or s.types & p_types <> 0)
          and (p_from is null or s.created_at >= p_from) and (p_to is null or s.created_at <= p_to)) f;
    end if;
    languages := (
      select bit_or(s.languages) from memory.search_scopes s where s.organization_id = p_org and s.scope = any(scopes));
    asked := array(select w from memory.query_words(p_query, coalesce(languages, 2) | coalesce(fresh_languages, 0)) w);
    fresh := array(
      select (-f.n, hashtext(u.lexeme), cardinality(u.positions), least(length(f.words), 32767), f.role)::memory.new_posting
      from unnest(said, roles) with ordinality f (words, role, n) cross join lateral unnest(f.words) u
      where u.lexeme = any(array(select w.stem from unnest(asked) w)));
    return query
      select h.score, h.word_place, h.meaning_place, h.word_score, h.meaning_score, m.id, m.agent_id, m.conversation_id,
        m.created_at, m.body, h.approximate_words
      from memory.find_texts(
        p_org, scopes, asked, p_vectors,
        array(select memory.model_of(v.embedder, v.vector) from unnest(p_vectors, p_embedders) v (vector, embedder)),
        p_mode <> 1 /* SearchMode.VECTOR */,
        (p_conversation, p_roles, p_types, null, null, p_from, p_to, null, null)::memory.text_filter, fresh, p_limit) h
      -- One by one, by the whole key: what a plan makes of a join depends on what is known of the tables.
      left join lateral (
        select y.conversation_id, y.seq from memory.search_texts y
        where y.organization_id = p_org and y.scope = h.key >> 32 and y.place = h.key & 4294967295 limit 1) t on true
      cross join lateral (
        select y.* from memory.messages y
        where y.organization_id = p_org and y.conversation_id = coalesce(t.conversation_id, conversations[(-h.key)::integer])
          and y.seq = coalesce(t.seq, seqs[(-h.key)::integer]) limit 1) m
      order by case when p_newest then m.created_at end desc, h.score desc, m.created_at desc, m.id;
    if found or p_mode = 1 /* SearchMode.VECTOR */ then
      return;
    end if;
  end if;
  return query
    select 0::float8, null::integer, null::integer, null::float8, null::float8, s.id, s.agent_id, s.conversation_id,
      s.created_at, s.body, null::text[]
    from memory.messages s where s.organization_id = p_org and s.search <> ''
      and (p_agent is null or s.agent_id = p_agent) and (p_conversation is null or s.conversation_id = p_conversation)
      and (p_roles is null or s.role = any(p_roles)) and (p_types is null or s.types & p_types <> 0)
      and (p_from is null or s.created_at >= p_from) and (p_to is null or s.created_at <= p_to)
      and (p_query = '' or strpos(lower(s.search), lower(p_query)) > 0)
    order by s.created_at desc, s.id desc limit p_limit;
end $$;
