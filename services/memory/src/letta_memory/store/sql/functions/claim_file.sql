-- Takes a file that waits to be read, of an organization by chance, so that one with many holds up no other. Files whose reader was
-- not heard of in time wait too. Locks: the file, which nobody waits for.
create or replace function memory.claim_file(p_lease text, p_seconds double precision)
returns table (
  organization_id text, id text, folder_id text, name text, media_type text, chunk_size integer, attempts integer,
  lease_id text
) language plpgsql as $$
declare
  owner text;
  taken text;
begin
  for owner in
    with recursive owners as (
      (select f.organization_id from memory.files f where f.status in (1, 2) and f.deleted_at is null
       order by f.organization_id limit 1)
      union all
      select (select f.organization_id from memory.files f where f.status in (1, 2) and f.deleted_at is null
              and f.organization_id > o.organization_id order by f.organization_id limit 1)
      from owners o where o.organization_id is not null)
    select o.organization_id from owners o where o.organization_id is not null order by random()
  loop
    select f.id into taken from memory.files f
    where f.organization_id = owner and f.status in (1, 2) and f.deleted_at is null
      and (f.lease_until is null or f.lease_until < clock_timestamp())
    order by f.id limit 1 for update skip locked;
    if taken is not null then
      return query
        update memory.files f set status = 2 /* FileStatus.PARSING */, attempts = f.attempts + 1, lease_id = p_lease,
          lease_until = clock_timestamp() + p_seconds * interval '1 second', updated_at = now()
        from memory.folders d
        where f.organization_id = owner and f.id = taken and d.organization_id = owner and d.id = f.folder_id
        returning owner, f.id, f.folder_id, f.name, f.media_type, d.chunk_size, f.attempts::integer, p_lease;
      return;
    end if;
  end loop;
end $$;
