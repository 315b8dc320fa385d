-- The first place of an archive's passages that is kept: all but as many as it has too much. What that is costs as many rows, and
-- the background takes them away. Locks: none.
create or replace function memory.kept_place(p_org text, p_archive text) returns integer language sql stable as $$
  select coalesce((
    select p.place from memory.archives a cross join lateral (
      select x.place from memory.passages x where x.organization_id = p_org and x.archive_id = p_archive
      order by x.place offset a.passage_count - a.max_passages limit 1) p
    where a.organization_id = p_org and a.id = p_archive and a.max_passages < a.passage_count), 0)
$$;
