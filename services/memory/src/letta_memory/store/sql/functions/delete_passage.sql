-- Removes a passage. Status 0: done, 1: no such archive, 2: no such passage in it.
-- Locks: the archive, then its scope.
create or replace function memory.delete_passage(p_org text, p_archive text, p_id text) returns smallint
language plpgsql as $$
declare
  gone memory.passages;
begin
  perform from memory.archives a where a.organization_id = p_org and a.id = p_archive for no key update;
  if not found then
    return 1;
  end if;
  delete from memory.passages p where p.organization_id = p_org and p.archive_id = p_archive and p.id = p_id
  returning p.* into gone;
  if not found then
    return 2;
  end if;
  update memory.archives a set passage_count = a.passage_count - 1 where a.organization_id = p_org and a.id = p_archive;
  insert into memory.tombstones (organization_id, id, created_at) values (p_org, p_id, gone.created_at)
  on conflict (organization_id, id) do update set deleted_at = now();
  return 0;
end $$;
