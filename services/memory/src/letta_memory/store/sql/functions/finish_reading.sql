-- Says that all of a file was read: it waits for its chunks to be embedded, unless all are. False when somebody else reads it now.
-- The archive waits from now on, so that whoever embeds looks at the file once more. Locks: the archive and the file.
create or replace function memory.finish_reading(
  p_org text, p_file text, p_lease text, p_media_type text, p_chunks integer, p_text_bytes bigint, p_now timestamptz
) returns boolean language plpgsql as $$
begin
  update memory.archives a set waiting_since = clock_timestamp()
  from memory.files f
  where f.organization_id = p_org and f.id = p_file and a.organization_id = p_org and a.id = f.folder_id;
  update memory.files f set
    status = case when exists (
      select from memory.passages p where p.organization_id = p_org and p.file_id = p_file and p.pending)
      then 3 /* FileStatus.EMBEDDING */ else 4 /* FileStatus.COMPLETED */ end,
    media_type = p_media_type, chunk_count = p_chunks, text_bytes = p_text_bytes, error = '', attempts = 0, lease_id = '',
    lease_until = null, updated_at = p_now
  where f.organization_id = p_org and f.id = p_file and f.lease_id = p_lease and f.deleted_at is null;
  return found;
end $$;
