-- Removes some rows of a file that was deleted: of what was read of it first, then of its bytes, then the file. Says whether there
-- may be more. Locks: the rows, the archive that counts the chunks, and last the
-- organization's count of bytes.
create or replace function memory.purge_file(p_org text, p_file text) returns boolean language plpgsql as $$
declare
  n bigint;
begin
  perform from memory.files f where f.organization_id = p_org and f.id = p_file and f.deleted_at is not null;
  if not found then
    return false;
  end if;
  if memory.purge_reading(p_org, p_file) then
    return true;
  end if;
  -- 64 rows of bytes are 16 MiB.
  n := memory.forget_parts(p_org, p_file, 64);
  if n = 0 then
    delete from memory.files f where f.organization_id = p_org and f.id = p_file;
  end if;
  return n > 0;
end $$;
