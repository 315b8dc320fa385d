-- Keeps a part of a file; the object of the bucket that has its bytes, and that is held, is loose no more. Locks: the note of the object.
create or replace function memory.keep_part(
  p_org text, p_file text, p_number integer, p_part bytea, p_size integer, p_object text, p_sha256 bytea
) returns void language sql as $$
  delete from memory.loose_objects l where l.organization_id = p_org and l.object = p_object;
  insert into memory.file_parts (organization_id, file_id, number, bytes, size_bytes, object, sha256)
  values (p_org, p_file, p_number, p_part, p_size, p_object, p_sha256);
$$;
