-- Makes a file of an upload, under a name that no other file of its folder has; answers the id and the name of the file that is
-- there then, and the id of the one whose place it took. Status 1: no folder, 2: another stream goes on with the upload, 3: the
-- name is taken, 4: the organization would store more than p_most bytes. Locks: the folder, so that two uploads of one name come one
-- after the other, the file, the note of the object, and the organization's count.
create or replace function memory.finish_upload(
  p_org text, p_folder text, p_id text, p_token text, p_name text, p_duplicates smallint, p_number integer, p_part bytea,
  p_part_size integer, p_object text, p_part_sha256 bytea, p_size bigint, p_sha256 bytea, p_most bigint, p_now timestamptz
) returns table (status smallint, file_id text, name text, replaced_id text) language plpgsql as $$
declare
  other text;
  called text := p_name;
  extension text := coalesce(substring(p_name from '^.+(\.[^.]*)$'), '');
  n integer := 0;
begin
  perform from memory.folders d
  where d.organization_id = p_org and d.id = p_folder and d.deleted_at is null for no key update;
  if not found then
    return query select 1::smallint, '', '', '';
    return;
  end if;
  perform from memory.files f where f.organization_id = p_org and f.id = p_id and f.lease_id = p_token and f.status = 0
    and f.deleted_at is null for update;
  if not found or not memory.hold_object(p_org, p_object) then
    return query select 2::smallint, '', '', '';
    return;
  end if;
  select f.id into other from memory.files f where f.organization_id = p_org and f.folder_id = p_folder
    and f.name = p_name and f.deleted_at is null and f.status > 0;
  if other is not null and p_duplicates = 1 /* DuplicateHandling.SKIP */ then
    update memory.files f set deleted_at = p_now where f.organization_id = p_org and f.id = p_id;
    return query select 0::smallint, other, p_name, '';
    return;
  elsif other is not null and p_duplicates = 2 /* DuplicateHandling.ERROR */ then
    return query select 3::smallint, other, p_name, '';
    return;
  elsif p_part_size > 0 and not memory.count_stored(p_org, p_part_size, p_most) then
    return query select 4::smallint, '', '', '';
    return;
  elsif other is not null and p_duplicates = 4 /* DuplicateHandling.REPLACE */ then
    with gone as (
      update memory.files f set deleted_at = p_now where f.organization_id = p_org and f.id = other
      returning f.organization_id, f.id, f.created_at)
    insert into memory.tombstones (organization_id, id, created_at) select * from gone
    on conflict (organization_id, id) do update set deleted_at = now();
  elsif other is not null then
    loop
      n := n + 1;
      called := left(p_name, length(p_name) - length(extension)) || '_(' || n || ')' || extension;
      exit when not exists (
        select from memory.files f where f.organization_id = p_org and f.folder_id = p_folder and f.name = called
          and f.deleted_at is null and f.status > 0);
    end loop;
    other := null;
  end if;
  if p_part_size > 0 then
    perform memory.keep_part(p_org, p_id, p_number, p_part, p_part_size, p_object, p_part_sha256);
  end if;
  -- It is created now: before, no list showed it.
  update memory.files f set name = called, status = 1 /* FileStatus.PENDING */, size_bytes = p_size, sha256 = p_sha256,
    lease_id = '', created_at = p_now, updated_at = p_now
  where f.organization_id = p_org and f.id = p_id;
  return query select 0::smallint, p_id, called, coalesce(other, '');
end $$;
