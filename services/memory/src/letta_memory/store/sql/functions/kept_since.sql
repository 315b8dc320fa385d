-- From when on passages of an archive are kept, by their created_at. Locks: none.
create or replace function memory.kept_since(p_org text, p_archive text, p_now timestamptz) returns timestamptz
language sql stable as $$
  select coalesce((
    select p_now - a.max_age from memory.archives a
    where a.organization_id = p_org and a.id = p_archive), '-infinity')
$$;
