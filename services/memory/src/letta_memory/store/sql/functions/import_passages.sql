-- Writes some entries of an import to an archive, all or none, and counts them. Status 1: no archive, 2: other entries came meanwhile than
-- the p_received before these, 3: entry `entry`, from 1, has a vector of another dimension. With p_received 0 the import begins anew.
-- p_ids: of entries whose key is no id of a passage of the archive. A vector of another embedder than the archive's is left out.
-- Locks: the archive, then the import, then its scope.
create or replace function memory.import_passages(
  p_org text, p_user text, p_archive text, p_now timestamptz, p_import text, p_received bigint,
  p_keys text[], p_ids text[], p_texts text[], p_metadata text[], p_tags text[], p_times timestamptz[],
  p_vectors extensions.halfvec[], p_embedders text[], p_origins text[],
  out status smallint, out written bigint, out entry integer
) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off
set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  a memory.archives;
  came bigint;
  first_place integer;
begin
  status := 0;
  select * into a from memory.archives t
  where t.organization_id = p_org and t.id = p_archive and not t.of_folder for no key update;
  if not found then
    status := 1;
    return;
  end if;
  if p_import <> '' then
    insert into memory.passage_imports as m (organization_id, archive_id, id, updated_at)
    values (p_org, a.id, p_import, p_now)
    on conflict (organization_id, archive_id, id) do update set
      received = case when p_received = 0 then 0 else m.received end,
      written = case when p_received = 0 then 0 else m.written end
    returning m.received into came;
    if came <> p_received then
      status := 2;
      return;
    end if;
  end if;
  if a.embedder = '' then
    -- An archive that was made without an embedder takes that of its first vector.
    a.embedder := coalesce((
      select e.embedder from unnest(p_embedders, p_vectors) with ordinality e (embedder, vector, n)
      where e.embedder <> '' and e.vector is not null order by e.n limit 1), '');
  end if;
  for i in 1 .. cardinality(p_ids) loop
    if a.embedder = '' or p_embedders[i] not in ('', a.embedder) then
      p_vectors[i] := null;
    elsif p_vectors[i] is not null then
      a.dimensions := coalesce(a.dimensions, extensions.vector_dims(p_vectors[i]));
      if extensions.vector_dims(p_vectors[i]) <> a.dimensions then
        status := 3;
        entry := i;
        written := a.dimensions;
        return;
      end if;
    end if;
    if p_keys[i] <> '' and exists (
      select from memory.passages p where p.organization_id = p_org and p.archive_id = a.id and p.id = p_keys[i])
    then
      p_ids[i] := p_keys[i];
    end if;
  end loop;
  insert into memory.search_scopes (organization_id, owner_id) values (p_org, a.id) on conflict do nothing;
  select x.next_place into first_place from memory.search_scopes x where x.organization_id = p_org and x.owner_id = a.id;
  perform from memory.write_passages(
    p_org, p_user, null, a.id, null, p_now, a.embedder, p_ids, p_texts, p_metadata, p_tags, p_times, p_vectors,
    p_origins, null);
  select x.next_place - first_place into written
  from memory.search_scopes x where x.organization_id = p_org and x.owner_id = a.id;
  update memory.passage_imports m
  set received = m.received + cardinality(p_ids), written = m.written + import_passages.written, updated_at = p_now
  where m.organization_id = p_org and m.archive_id = a.id and m.id = p_import;
end $$;
