-- Removes passages of an archive and keeps their places for cursors. Answers with how many there were.
-- Locks: the scope; the caller holds the archive.
create or replace function memory.remove_passages(p_org text, p_archive text, p_ids text[]) returns bigint
language plpgsql as $$
declare
  n bigint;
begin
  with gone as (
    delete from memory.passages p where p.organization_id = p_org and p.archive_id = p_archive and p.id = any(p_ids)
    returning p.id, p.created_at
  ), kept as (
    insert into memory.tombstones (organization_id, id, created_at) select p_org, g.id, g.created_at from gone g
    on conflict (organization_id, id) do update set deleted_at = now()
  )
  select count(*) into n from gone;
  update memory.archives a set passage_count = a.passage_count - n where a.organization_id = p_org and a.id = p_archive;
  return n;
end $$;
