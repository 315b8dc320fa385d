-- Writes chunks of a file as passages that wait to be embedded. False when somebody else reads the file now, or it is gone. Locks:
-- the archive of the folder, and the file.
create or replace function memory.write_chunks(
  p_org text, p_file text, p_lease text, p_first integer, p_ids text[], p_texts text[], p_metadata text[]
) returns boolean language plpgsql as $$
declare
  a memory.archives;
  f memory.files;
begin
  select c.* into a from memory.archives c join memory.files o
    on o.organization_id = c.organization_id and o.folder_id = c.id
  where c.organization_id = p_org and o.id = p_file for no key update of c;
  select * into f from memory.files t where t.organization_id = p_org and t.id = p_file and t.lease_id = p_lease
    and t.deleted_at is null for update;
  if f.id is null or a.id is null then
    return false;
  end if;
  perform memory.write_passages(
    p_org, f.created_by_id, null, a.id, null, now(), a.embedder, p_ids, p_texts, p_metadata,
    array_fill('[]'::text, array[cardinality(p_ids)]),
    -- A microsecond apart, so that lists by time have them in the order of the file.
    (select array_agg(f.created_at + (p_first + n) * interval '1 microsecond' order by n)
     from generate_series(0, cardinality(p_ids) - 1) n),
    array_fill(null::extensions.halfvec, array[cardinality(p_ids)]), array_fill(''::text, array[cardinality(p_ids)]), null);
  update memory.passages p set file_id = p_file, file_place = p_first + i.number - 1
  from unnest(p_ids) with ordinality i (id, number)
  where p.organization_id = p_org and p.archive_id = a.id and p.id = i.id;
  return true;
end $$;
