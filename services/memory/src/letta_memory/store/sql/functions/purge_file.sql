-- Removes some rows of a file that was deleted: of what was read of it first, then of its bytes, then the file. Says whether there
-- may be more. Locks: the rows, the archive that counts the chunks, and last the
-- organization's count of bytes.
create or replace function memory.purge_file(p_org text, p_file text) returns boolean language plpgsql as $$
declare
  n bigint;
  freed bigint;
begin
  perform from memory.files f where f.organization_id = p_org and f.id = p_file and f.deleted_at is not null;
  if not found then
    return false;
  end if;
  if memory.purge_reading(p_org, p_file) then
    return true;
  end if;
  -- 64 rows of bytes are 16 MiB.
  with gone as (
    delete from memory.file_parts t where t.organization_id = p_org and t.file_id = p_file and t.number = any(array(
      select c.number from memory.file_parts c where c.organization_id = p_org and c.file_id = p_file limit 64))
    returning length(t.bytes) as size)
  select count(*), coalesce(sum(size), 0) into n, freed from gone;
  if n > 0 then
    perform memory.count_stored(p_org, -freed, 0);
  else
    delete from memory.files f where f.organization_id = p_org and f.id = p_file;
  end if;
  return n > 0;
end $$;
