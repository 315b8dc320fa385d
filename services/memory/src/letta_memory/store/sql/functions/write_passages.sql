-- Writes passages to an archive, or to an agent's, which is made the first time. Status 1: no archive, 2: no agent, 3: another
-- request wrote passages with these ids; without a digest of the request nothing is compared. p_origins: JSON objects, empty where
-- nothing is said.
-- A vector is kept when the archive's embedder made it, of the dimension of the others; otherwise the passage waits to be
-- embedded, and the archive says so. Where the archive skips texts that it has, the passage that stands takes the place of a repeat. Of
-- what an archive has too much, some of the oldest is removed. What search keeps is written with them. Locks: the archive, then its scope.
create or replace function memory.write_passages(
  p_org text, p_user text, p_agent text, p_archive text, p_new_archive text, p_now timestamptz, p_embedder text,
  p_ids text[], p_texts text[], p_metadata text[], p_tags text[], p_times timestamptz[], p_vectors extensions.halfvec[],
  p_origins text[], p_request_hash bytea
) returns setof memory.passage_row language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off
set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  a memory.archives;
  r memory.passage_row;
  agent_name text;
  agent_embedder text;
  n bigint := 0;
  waiting boolean := false;
  place memory.search_scopes;
  entry memory.search_texts;
  made memory.passages;
  origin jsonb;
  hash bytea;
  first_place integer;
  stands memory.passages;
begin
  r.status := 0;
  if p_archive is null then
    select g.name, g.embedder into agent_name, agent_embedder
    -- Shared, so that the agent is not removed before its archive is linked.
    from memory.agents g where g.organization_id = p_org and g.id = p_agent for share;
    if agent_name is null then
      r.status := 2;
      return next r;
      return;
    end if;
    select l.archive_id into p_archive from memory.archive_agents l
    where l.organization_id = p_org and l.agent_id = p_agent;
    if p_archive is null then
      insert into memory.archives (
        organization_id, id, name, embedder, owner_agent_id, created_by_id, last_updated_by_id, created_at, updated_at)
      values (p_org, p_new_archive, agent_name || '''s Archive', agent_embedder, p_agent, p_user, p_user, p_now, p_now)
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
  -- Rows one by one, by their whole key: what a plan makes of a join with p_ids depends on what is known of the tables.
  if p_request_hash is not null and exists (
    select from unnest(p_ids) i (id) where p_request_hash <> (
      select p.request_hash from memory.passages p
      where p.organization_id = p_org and p.archive_id = a.id and p.id = i.id))
  then
    r.status := 3;
    return next r;
    return;
  end if;
  -- An archive that was made without an embedder takes that of its first passage.
  if a.embedder = '' then
    a.embedder := p_embedder;
  end if;
  if a.dimensions is null and a.embedder = p_embedder then
    a.dimensions := (
      select extensions.vector_dims(v.vector) from unnest(p_vectors) v (vector) where v.vector is not null limit 1);
  end if;
  insert into memory.search_scopes (organization_id, owner_id) values (p_org, a.id) on conflict do nothing;
  select * into place from memory.search_scopes x where x.organization_id = p_org and x.owner_id = a.id for no key update;
  first_place := place.next_place;
  for i in 1 .. cardinality(p_ids) loop
    hash := case when not a.of_folder then sha256(convert_to(p_texts[i], 'UTF8')) end;
    stands := null;
    if a.deduplication = 2 /* Deduplication.SKIP */ then
      select * into stands from memory.passages p
      where p.organization_id = p_org and p.archive_id = a.id and p.text_hash = hash order by p.copy desc limit 1;
      if stands.created_at >= memory.kept_since(p_org, a.id, p_now) and stands.place >= memory.kept_place(p_org, a.id)
        and stands.id <> p_ids[i]
      then
        p_ids[i] := stands.id;
        r.archive_embedder := a.embedder;
        r.passage := stands;
        r.embedding := (
          select t.embedding from memory.search_texts t
          where t.organization_id = p_org and t.scope = stands.scope and t.place = stands.place);
        r.existing := true;
        return next r;
        continue;
      end if;
    end if;
    entry.embedding := case
      when a.embedder = p_embedder and extensions.vector_dims(p_vectors[i]) = a.dimensions then p_vectors[i] end;
    origin := nullif(p_origins[i], '')::jsonb;
    insert into memory.passages (
      organization_id, archive_id, id, text, tags, metadata, created_by_id, last_updated_by_id, created_at, updated_at,
      pending, embedder, generation, request_hash, scope, place, text_hash, copy,
      origin_agent_id, origin_conversation_id, origin_run_id, origin_message_id, origin_tool_call_id, origin_tool_name, origin_file_id)
    values (
      p_org, a.id, p_ids[i], p_texts[i],
      case when p_tags[i] <> '[]' then (
        select array_agg(g.tag) from jsonb_array_elements_text(p_tags[i]::jsonb) g (tag)) end, p_metadata[i], p_user, p_user,
      p_times[i], p_now, entry.embedding is null, a.embedder, a.generation, p_request_hash, place.scope, place.next_place, hash,
      case when a.deduplication = 2 /* Deduplication.SKIP */ and stands.id is null then 0 else place.next_place end,
      origin ->> 'agent_id', origin ->> 'conversation_id', origin ->> 'run_id', origin ->> 'message_id',
      origin ->> 'tool_call_id', origin ->> 'tool_name', origin ->> 'file_id')
    on conflict do nothing returning * into made;
    if found then
      entry.organization_id := p_org;
      entry.scope := place.scope;
      entry.place := place.next_place;
      entry.passage_id := made.id;
      entry.tags := made.tags;
      entry.created_at := made.created_at;
      entry.role := 0;
      entry.types := 0;
      entry.speaker := 0;
      entry.model := memory.model_of(a.embedder, entry.embedding);
      entry.cell := case when place.cells > 0 then -1 else -2 end;
      entry.pending := false;  -- the passage itself says so
      entry.posted := true;
      n := n + 1;
      place.next_place := place.next_place + 1;
      place.text_count := place.text_count + 1;
      place.word_count := place.word_count + memory.write_text(entry, made.text);
    else
      select * into made from memory.passages p
      where p.organization_id = p_org and p.archive_id = a.id and p.id = p_ids[i];
      continue when not found;
      select t.embedding into entry.embedding from memory.search_texts t
      where t.organization_id = p_org and t.scope = made.scope and t.place = made.place;
    end if;
    waiting := waiting or made.pending;
    r.archive_embedder := a.embedder;
    r.passage := made;
    r.embedding := entry.embedding;
    r.existing := false;
    return next r;
  end loop;
  if n > 0 then
    update memory.archives t
    set passage_count = t.passage_count + n, embedder = a.embedder, dimensions = a.dimensions,
        -- A new time, so that an indexer that saw the former one does not call the archive done.
        waiting_since = case when waiting then clock_timestamp() else t.waiting_since end,
        review_due = t.review_due or (t.suggest_duplicates and not t.of_folder)
    where t.organization_id = p_org and t.id = a.id;
    update memory.search_scopes x
    set next_place = place.next_place, text_count = place.text_count, word_count = place.word_count,
      due = x.due or place.text_count >= place.due_at,
      unspelled = x.unspelled
        or place.word_count - x.spelled_words >= greatest(5000, least(x.spelled_words / 16, 20000))
    where x.organization_id = p_org and x.owner_id = a.id;
    if a.max_passages < a.passage_count + n then
      -- More than is new, so that what is left of a larger bound goes too; never what the answer has.
      perform memory.remove_passages(p_org, a.id, array(
        select p.id from memory.passages p
        where p.organization_id = p_org and p.archive_id = a.id and p.place < first_place and p.id <> all(p_ids)
        order by p.place limit least(a.passage_count + n - a.max_passages, n + 100)));
    end if;
  end if;
end $$;
