-- Keeps a part of an upload behind the others. False when another stream goes on with it. Locks: the file.
create or replace function memory.append_part(
  p_org text, p_id text, p_token text, p_offset bigint, p_number integer, p_part bytea, p_now timestamptz
) returns boolean language plpgsql as $$
begin
  update memory.files f set size_bytes = p_offset + length(p_part), updated_at = p_now
  where f.organization_id = p_org and f.id = p_id and f.lease_id = p_token and f.size_bytes = p_offset
    and f.status = 0 and f.deleted_at is null;
  if not found then
    return false;
  end if;
  insert into memory.file_parts (organization_id, file_id, number, bytes) values (p_org, p_id, p_number, p_part);
  return true;
end $$;
