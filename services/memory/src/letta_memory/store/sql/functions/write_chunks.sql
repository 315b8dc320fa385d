-- Writes chunks of a file as passages that wait to be embedded. False when somebody else reads the file now, or it is gone. Locks:
-- the archive of the folder, and the file.
create or replace function memory.write_chunks(
  p_org text, p_file text, p_lease text, p_first integer, p_ids text[], p_texts text[], p_metadata text[]
) returns boolean language plpgsql as $$
declare
  a memory.archives;
  f memory.files;
  n bigint;
begin
  select c.* into a from memory.archives c join memory.files o
    on o.organization_id = c.organization_id and o.folder_id = c.id
  where c.organization_id = p_org and o.id = p_file for no key update of c;
  select * into f from memory.files t where t.organization_id = p_org and t.id = p_file and t.lease_id = p_lease
    and t.deleted_at is null for update;
  if f.id is null or a.id is null then
    return false;
  end if;
  insert into memory.passages (
    organization_id, archive_id, id, text, metadata, created_by_id, last_updated_by_id, created_at, updated_at, pending,
    embedder, generation, file_id, file_place)
  select p_org, a.id, i.id, i.text, i.metadata, f.created_by_id, f.created_by_id,
    -- A microsecond apart, so that lists by time have them in the order of the file.
    f.created_at + (p_first + i.place - 1) * interval '1 microsecond', now(), true, a.embedder, a.generation, p_file,
    p_first + i.place - 1
  from unnest(p_ids, p_texts, p_metadata) with ordinality i (id, text, metadata, place)
  on conflict do nothing;
  get diagnostics n = row_count;
  update memory.archives t set passage_count = t.passage_count + n, waiting_since = clock_timestamp()
  where t.organization_id = p_org and t.id = a.id;
  return true;
end $$;
