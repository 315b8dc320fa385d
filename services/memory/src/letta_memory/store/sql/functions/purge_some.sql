-- Removes some rows of what was deleted, of whichever organization, what was deleted first at first, and then some passages for a purge
-- that did not end. Says whether there may be more. Locks: the rows; what somebody else works on is left to them.
create or replace function memory.purge_some() returns boolean language plpgsql as $$
declare
  owner text;
  gone text;
  inside text;
begin
  select f.organization_id, f.id into owner, gone from memory.files f
  where f.deleted_at is not null order by f.deleted_at limit 1 for update skip locked;
  if gone is not null then
    perform memory.purge_file(owner, gone);
    return true;
  end if;
  select d.organization_id, d.id into owner, gone from memory.folders d
  where d.deleted_at is not null order by d.deleted_at limit 1 for update skip locked;
  if gone is null then
    select x.organization_id, x.id into owner, gone from memory.passage_purges x
    where x.ended_at is null order by x.started_at limit 1 for update skip locked;
    if gone is not null then
      perform memory.purge_passages(owner, gone, 1000);
    end if;
    return gone is not null;
  end if;
  select f.id into inside from memory.files f where f.organization_id = owner and f.folder_id = gone limit 1;
  if inside is not null then
    update memory.files f set deleted_at = now() where f.organization_id = owner and f.id = inside;
  else
    delete from memory.archives a where a.organization_id = owner and a.id = gone;
    delete from memory.folders d where d.organization_id = owner and d.id = gone;
  end if;
  return true;
end $$;
