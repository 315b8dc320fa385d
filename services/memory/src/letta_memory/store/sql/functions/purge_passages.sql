-- Removes some of the passages that a purge is for, of one archive at a time. Says how many it removed in all, and whether none is
-- left. Locks: the purge, the archive, then its scope.
create or replace function memory.purge_passages(
  p_org text, p_id text, p_most integer, out removed bigint, out ended boolean
) language plpgsql as $$
declare
  g memory.passage_purges;
  found_archives text[];
  found_ids text[];
  place text;
  n bigint;
begin
  select * into g from memory.passage_purges x where x.organization_id = p_org and x.id = p_id for update;
  removed := g.removed;
  ended := g.id is null or g.ended_at is not null;
  if ended then
    return;
  end if;
  select array_agg(f.archive_id), array_agg(f.id) into found_archives, found_ids
  from memory.fitting_passages(p_org, g.archive_id, g.filter, g.started_at, p_most) f;
  if found_ids is null then
    update memory.passage_purges x set ended_at = clock_timestamp() where x.organization_id = p_org and x.id = p_id;
    ended := true;
    return;
  end if;
  place := found_archives[1];
  perform from memory.archives a where a.organization_id = p_org and a.id = place for no key update;
  n := memory.remove_passages(p_org, place, array(
    select u.id from unnest(found_archives, found_ids) u (archive_id, id) where u.archive_id = place));
  update memory.passage_purges x set removed = x.removed + n where x.organization_id = p_org and x.id = p_id
  returning x.removed into purge_passages.removed;
end $$;
