-- Keeps a part of an upload behind the others; its bytes, or the object of the bucket that has them and that was noted before it was
-- written. Status 1: another stream goes on with it, 2: the organization would store more than p_most bytes. Locks: the file, the note of
-- the object, then the organization's count.
create or replace function memory.append_part(
  p_org text, p_id text, p_token text, p_offset bigint, p_number integer, p_part bytea, p_part_size integer, p_object text,
  p_part_sha256 bytea, p_most bigint, p_now timestamptz
) returns smallint language plpgsql as $$
begin
  perform from memory.files f where f.organization_id = p_org and f.id = p_id and f.lease_id = p_token
    and f.size_bytes = p_offset and f.status = 0 and f.deleted_at is null for no key update;
  if not found or not memory.hold_object(p_org, p_object) then
    return 1;
  elsif not memory.count_stored(p_org, p_part_size, p_most) then
    return 2;
  end if;
  update memory.files f set size_bytes = p_offset + p_part_size, updated_at = p_now
  where f.organization_id = p_org and f.id = p_id;
  perform memory.keep_part(p_org, p_id, p_number, p_part, p_part_size, p_object, p_part_sha256);
  return 0;
end $$;
