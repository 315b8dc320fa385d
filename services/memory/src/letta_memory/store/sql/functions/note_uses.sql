-- Notes when passages were used, of whichever organizations, where their archives remove those that nobody uses. Answers with the archives that
-- do not. What is noted already for the same minute is left. Locks: the rows of the uses, in order.
create or replace function memory.note_uses(p_orgs text[], p_archives text[], p_ids text[], p_times timestamptz[])
returns table (organization_id text, archive_id text) language plpgsql as $$
begin
  insert into memory.passage_uses as u (organization_id, archive_id, passage_id, used_at)
  select p.organization_id, p.archive_id, p.id, n.used_at
  from unnest(p_orgs, p_archives, p_ids, p_times) n (org, archive, id, used_at)
  join memory.archives a on a.organization_id = n.org and a.id = n.archive and a.unused_after is not null
  join memory.passages p on p.organization_id = n.org and p.archive_id = n.archive and p.id = n.id
  order by 1, 2, 3
  -- So that none of them goes before this ends.
  for key share of p
  on conflict on constraint passage_uses_pkey do update set used_at = excluded.used_at
  where u.used_at < excluded.used_at - interval '1 minute';
  return query
    select distinct n.org, n.archive from unnest(p_orgs, p_archives) n (org, archive)
    where not exists (
      select from memory.archives a where a.organization_id = n.org and a.id = n.archive and a.unused_after is not null);
end $$;
