-- Notes up to where the texts of an archive are compared, and what came of it. False when somebody else has the work now, or the
-- archive is gone; then nothing is written. p_new has rows of memory.suggestions in JSON. What is open or was dismissed is not proposed
-- again, and nothing about passages that went meanwhile. Locks: the archive and the passages against deletion, and how far it is.
create or replace function memory.settle_review(
  p_org text, p_archive text, p_claim bigint, p_place integer, p_digest_ids text[], p_digests bytea[],
  p_new text
) returns boolean language plpgsql as $$
declare
  present text[];
begin
  perform from memory.archives a where a.organization_id = p_org and a.id = p_archive for key share;
  update memory.archive_reviews r set place = p_place, leased_until = '-infinity'
  where r.organization_id = p_org and r.archive_id = p_archive and r.claim = p_claim;
  if not found then
    return false;
  end if;
  -- Locked, so that who deletes one sees what is proposed about it.
  present := array(
    select p.id from memory.passages p
    where p.organization_id = p_org and p.archive_id = p_archive and p.id = any(p_digest_ids || array(
      select u.id from json_populate_recordset(null::memory.suggestions, p_new::json) n cross join unnest(n.passage_ids) u (id)))
    order by p.id for key share);
  insert into memory.passage_digests (organization_id, archive_id, passage_id, digest)
  select p_org, p_archive, d.id, d.digest from unnest(p_digest_ids, p_digests) d (id, digest) where d.id = any(present)
  on conflict (organization_id, archive_id, passage_id) do update set digest = excluded.digest;
  insert into memory.suggestions
  select n.* from json_populate_recordset(null::memory.suggestions, p_new::json) n where n.passage_ids <@ present
  on conflict do nothing;
  return true;
end $$;
