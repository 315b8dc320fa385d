-- Removes some passages of an archive, of whichever organization, that are not kept any more. Answers with how many, or with null when
-- no archive is left that was not seen to since p_now. Locks: the archive, then its scope; one that somebody else holds is left.
create or replace function memory.prune_archive(p_now timestamptz, p_most integer) returns bigint
language plpgsql set plan_cache_mode = force_custom_plan as $$
declare
  a memory.archives;
  since timestamptz;
  first_place integer;
  ids text[];
begin
  select * into a from memory.archives x
  where (x.max_age is not null or x.max_passages is not null or x.unused_after is not null) and (x.pruned_at is null or x.pruned_at < p_now)
  order by x.pruned_at nulls first limit 1 for no key update skip locked;
  if a.id is null then
    return null;
  end if;
  since := memory.kept_since(a.organization_id, a.id, p_now);
  first_place := memory.kept_place(a.organization_id, a.id);
  ids := array(
    (select p.id from memory.passages p
     where p.organization_id = a.organization_id and p.archive_id = a.id and p.created_at < since limit p_most)
    union
    (select p.id from memory.passages p
     where p.organization_id = a.organization_id and p.archive_id = a.id and p.place < first_place limit p_most)
    union
    (select p.id from memory.passages p
     where p.organization_id = a.organization_id and p.archive_id = a.id
       and a.uses_since < p_now - a.unused_after and p.updated_at < p_now - a.unused_after and not exists (
         select from memory.passage_uses u
         where u.organization_id = p.organization_id and u.archive_id = p.archive_id and u.passage_id = p.id
           and u.used_at >= p_now - a.unused_after)
     limit p_most)
    limit p_most);
  if cardinality(ids) < p_most then
    update memory.archives x set pruned_at = p_now where x.organization_id = a.organization_id and x.id = a.id;
  end if;
  return memory.remove_passages(a.organization_id, a.id, ids);
end $$;
