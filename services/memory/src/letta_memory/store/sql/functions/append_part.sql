-- Keeps a part of an upload behind the others. Status 1: another stream goes on with it, 2: the organization would store more than
-- p_most bytes. Locks: the file, then the organization's count.
create or replace function memory.append_part(
  p_org text, p_id text, p_token text, p_offset bigint, p_number integer, p_part bytea, p_most bigint, p_now timestamptz
) returns smallint language plpgsql as $$
begin
  perform from memory.files f where f.organization_id = p_org and f.id = p_id and f.lease_id = p_token
    and f.size_bytes = p_offset and f.status = 0 and f.deleted_at is null for no key update;
  if not found then
    return 1;
  elsif not memory.count_stored(p_org, length(p_part), p_most) then
    return 2;
  end if;
  update memory.files f set size_bytes = p_offset + length(p_part), updated_at = p_now
  where f.organization_id = p_org and f.id = p_id;
  insert into memory.file_parts (organization_id, file_id, number, bytes) values (p_org, p_id, p_number, p_part);
  return 0;
end $$;
