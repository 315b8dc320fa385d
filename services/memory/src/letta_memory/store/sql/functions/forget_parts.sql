-- Removes some parts of a file, notes the objects that had their bytes as loose, and counts what is stored no more. Answers how many
-- parts. Locks: the parts, then the organization's count.
create or replace function memory.forget_parts(p_org text, p_file text, p_most integer) returns bigint language plpgsql as $$
declare
  n bigint;
  freed bigint;
begin
  with gone as (
    delete from memory.file_parts t where t.organization_id = p_org and t.file_id = p_file and t.number = any(array(
      select c.number from memory.file_parts c where c.organization_id = p_org and c.file_id = p_file limit p_most))
    returning t.size_bytes, t.object),
  loose as (
    insert into memory.loose_objects (organization_id, object, due_at)
    select p_org, g.object, now() from gone g where g.object is not null on conflict do nothing)
  select count(*), coalesce(sum(g.size_bytes), 0) into n, freed from gone g;
  if n > 0 then
    perform memory.count_stored(p_org, -freed, 0);
  end if;
  return n;
end $$;
