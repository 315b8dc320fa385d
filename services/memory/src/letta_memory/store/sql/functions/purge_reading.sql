-- Removes some of what reading a file made: its chunks first, which search finds, then its text. Says whether there may be more.
-- Locks: the rows, and the archive that counts the chunks.
create or replace function memory.purge_reading(p_org text, p_file text) returns boolean language plpgsql as $$
declare
  folder text := (select f.folder_id from memory.files f where f.organization_id = p_org and f.id = p_file);
  n bigint;
begin
  -- The archive first, as whoever writes chunks does.
  perform from memory.archives a where a.organization_id = p_org and a.id = folder for no key update;
  delete from memory.passages p where p.organization_id = p_org and p.id = any(array(
    select c.id from memory.passages c where c.organization_id = p_org and c.file_id = p_file limit 1000));
  get diagnostics n = row_count;
  if n > 0 then
    update memory.archives a set passage_count = a.passage_count - n where a.organization_id = p_org and a.id = folder;
    return true;
  end if;
  delete from memory.file_texts t where t.organization_id = p_org and t.file_id = p_file and t.number = any(array(
    select c.number from memory.file_texts c where c.organization_id = p_org and c.file_id = p_file limit 64));
  get diagnostics n = row_count;
  return n > 0;
end $$;
