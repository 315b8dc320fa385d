-- Removes a passage. Status 0: done, 1: no such archive, 2: no such passage in it.
-- Locks: the archive, then its scope.
create or replace function memory.delete_passage(p_org text, p_archive text, p_id text) returns smallint
language plpgsql as $$
begin
  perform from memory.archives a where a.organization_id = p_org and a.id = p_archive for no key update;
  if not found then
    return 1;
  end if;
  return case when memory.remove_passages(p_org, p_archive, array[p_id]) = 0 then 2 else 0 end;
end $$;
