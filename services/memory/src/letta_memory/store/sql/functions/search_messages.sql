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
  lexemes text[] := tsvector_to_array(memory.words_of(p_query, null));
begin
  if p_query <> '' then
    p_agent := coalesce(p_agent, (
      select c.agent_id from memory.conversations c where c.organization_id = p_org and c.id = p_conversation));
    if p_agent is null then
      scopes := array(
        select s.scope from memory.search_scopes s where s.organization_id = p_org and starts_with(s.owner_id, 'agent-'));
      select array_agg(c.id), array_agg(coalesce(x.seq, 0)) into late, positions
      from memory.conversations c
      left join memory.search_positions x on x.organization_id = c.organization_id and x.conversation_id = c.id
      where c.organization_id = p_org and c.next_seq - 1 > coalesce(x.seq, 0) and p_conversation is null;
    else
      scopes := array(
        select s.scope from memory.search_scopes s where s.organization_id = p_org and s.owner_id = p_agent);
      select array_agg(c.id), array_agg(coalesce(x.seq, 0)) into late, positions
      from memory.conversations c
      left join memory.search_positions x on x.organization_id = c.organization_id and x.conversation_id = c.id
      where c.organization_id = p_org and c.agent_id = p_agent and c.next_seq - 1 > coalesce(x.seq, 0)
        and (p_conversation is null or c.id = p_conversation);
    end if;
    if late is not null and p_mode <> 1 /* SearchMode.VECTOR */ then
      with found as materialized (
        select m.conversation_id, m.seq, m.role, m.words, -row_number() over (order by m.created_at desc, m.seq desc) as key
        from unnest(late, positions) l (id, seq) cross join lateral (
          select * from memory.messages s
          where s.organization_id = p_org and s.conversation_id = l.id and s.seq > l.seq and s.search <> ''
            and (p_roles is null or s.role = any(p_roles)) and (p_types is null or s.types & p_types <> 0)
            and (p_from is null or s.created_at >= p_from) and (p_to is null or s.created_at <= p_to)
            and s.words @@ any_of) m)
      select array_agg(f.conversation_id order by f.key desc), array_agg(f.seq order by f.key desc),
        (select array_agg((g.key, hashtext(u.lexeme), cardinality(u.positions), length(g.words), g.role)::memory.new_posting)
         from found g cross join lateral unnest(g.words) u where u.lexeme = any(lexemes))
      into conversations, seqs, fresh from found f;
    end if;
    return query
      select h.score, h.word_place, h.meaning_place, h.word_score, h.meaning_score, m.id, m.agent_id, m.conversation_id,
        m.created_at, m.body, h.approximate_words
      from memory.find_texts(
        p_org, scopes, p_query, p_vectors,
        array(select memory.model_of(v.embedder, v.vector) from unnest(p_vectors, p_embedders) v (vector, embedder)),
        p_mode <> 1 /* SearchMode.VECTOR */,
        (p_conversation, p_roles, p_types, null, null, p_from, p_to)::memory.text_filter, fresh, p_limit) h
      left join memory.search_texts t
        on t.organization_id = p_org and t.scope = h.key >> 32 and t.place = h.key & 4294967295
      join memory.messages m
        on m.organization_id = p_org and m.conversation_id = coalesce(t.conversation_id, conversations[(-h.key)::integer])
          and m.seq = coalesce(t.seq, seqs[(-h.key)::integer])
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
