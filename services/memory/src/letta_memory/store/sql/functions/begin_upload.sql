-- Begins an upload, or takes over one that broke off; anew it forgets what came. Answers the bytes that came. Status 1: no folder,
-- 2: another request has the key, 3: the file of the key is being removed, 4: all came before. Locks: the file, then
-- the organization's count.
create or replace function memory.begin_upload(
  p_org text, p_user text, p_folder text, p_id text, p_name text, p_original text, p_media_type text, p_token text,
  p_anew boolean, p_request_hash bytea, p_now timestamptz
) returns table (status smallint, received bigint) language plpgsql as $$
declare
  f memory.files;
begin
  perform from memory.folders d
  where d.organization_id = p_org and d.id = p_folder and d.deleted_at is null for key share;
  if not found then
    return query select 1::smallint, 0::bigint;
    return;
  end if;
  insert into memory.files (
    organization_id, folder_id, id, name, original_name, media_type, lease_id, created_by_id, created_at, updated_at,
    request_hash)
  values (p_org, p_folder, p_id, p_name, p_original, p_media_type, p_token, p_user, p_now, p_now, p_request_hash)
  on conflict (organization_id, id) do nothing;
  if found then
    return query select 0::smallint, 0::bigint;
    return;
  end if;
  select * into f from memory.files t where t.organization_id = p_org and t.id = p_id for update;
  if f.id is null or f.deleted_at is not null then
    return query select 3::smallint, 0::bigint;
  elsif f.request_hash is distinct from p_request_hash then
    return query select 2::smallint, 0::bigint;
  elsif f.status > 0 then
    return query select 4::smallint, f.size_bytes;
  else
    if p_anew then
      perform memory.forget_parts(p_org, p_id, 2147483647);
      f.size_bytes := 0;
    end if;
    update memory.files t set lease_id = p_token, size_bytes = f.size_bytes, media_type = p_media_type, updated_at = p_now
    where t.organization_id = p_org and t.id = p_id;
    return query select 0::smallint, f.size_bytes;
  end if;
end $$;
