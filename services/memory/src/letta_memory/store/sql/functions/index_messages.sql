-- Writes what search keeps of the next messages of a conversation; answers with how many messages it went past.
--
-- p_embed: texts wait for the embedder. Nothing is done when the conversation is gone.
-- Locks: the conversation and messages against deletion, then the scope; deleting takes them in the same order.
create or replace function memory.index_messages(p_org text, p_conversation text, p_embed boolean, p_most integer)
returns integer language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off
set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  owner text;
  last bigint;
  s memory.search_scopes;
  t memory.search_texts;
  m record;
  seqs bigint[];
  done bigint;
begin
  select c.agent_id, c.next_seq - 1 into owner, last from memory.conversations c
  where c.organization_id = p_org and c.id = p_conversation for key share;
  if not found then
    return 0;
  end if;
  insert into memory.search_positions (organization_id, conversation_id) values (p_org, p_conversation)
  on conflict do nothing;
  select p.seq into done from memory.search_positions p
  where p.organization_id = p_org and p.conversation_id = p_conversation;
  select array_agg(l.seq) into seqs from (
    select x.seq from memory.messages x
    where x.organization_id = p_org and x.conversation_id = p_conversation and x.seq > done
    order by x.seq limit p_most for key share) l;
  if seqs is null then
    -- What was last is withdrawn or forgotten: without this the conversation would be late for ever.
    update memory.search_positions p set seq = last
    where p.organization_id = p_org and p.conversation_id = p_conversation and p.seq < last;
    return 0;
  end if;
  insert into memory.search_scopes (organization_id, owner_id) values (p_org, owner) on conflict do nothing;
  select * into s from memory.search_scopes x where x.organization_id = p_org and x.owner_id = owner
  for no key update;
  -- Another may have come further before this one had the lock.
  select p.seq into done from memory.search_positions p
  where p.organization_id = p_org and p.conversation_id = p_conversation;
  t.organization_id := p_org;
  t.scope := s.scope;
  t.conversation_id := p_conversation;
  t.cell := case when s.cells > 0 then -1 else -2 end;
  t.model := 0;
  t.pending := p_embed;
  t.posted := true;
  for m in
    select x.seq, x.role, x.types, x.created_at, x.search from memory.messages x
    where x.organization_id = p_org and x.conversation_id = p_conversation and x.seq = any(seqs) and x.seq > done
      and x.search <> '' order by x.seq
  loop
    t.place := s.next_place;
    t.seq := m.seq;
    t.role := m.role;
    t.types := m.types;
    t.speaker := 0;
    t.created_at := m.created_at;
    s.next_place := s.next_place + 1;
    s.text_count := s.text_count + 1;
    s.word_count := s.word_count + memory.write_text(t, m.search);
  end loop;
  update memory.search_scopes x
  set next_place = s.next_place, text_count = s.text_count, word_count = s.word_count, due = s.due or s.text_count >= s.due_at,
    unspelled = x.unspelled
      or s.word_count - x.spelled_words >= greatest(5000, least(x.spelled_words / 16, 20000))
  where x.organization_id = p_org and x.scope = s.scope;
  update memory.search_positions p set seq = greatest(p.seq, seqs[cardinality(seqs)])
  where p.organization_id = p_org and p.conversation_id = p_conversation;
  return cardinality(seqs);
end $$;
