-- Passages that an archive keeps at p_now, behind a place and up to another one, in order: at most p_most, of about p_bytes, and one at least.
-- Texts are not read for their sizes. Locks: none.
create or replace function memory.export_passages(
  p_org text, p_archive text, p_after integer, p_until integer, p_most integer, p_bytes bigint, p_vectors boolean, p_now timestamptz
) returns table (passage memory.passages, embedding extensions.halfvec) language plpgsql stable
set plan_cache_mode = force_generic_plan set enable_seqscan = off
set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  since timestamptz := memory.kept_since(p_org, p_archive, p_now);
  first_place integer := greatest(memory.kept_place(p_org, p_archive), p_after + 1);
  places integer[];
begin
  places := array(
    select s.place from (
      select w.place, sum(w.size) over (order by w.place) - w.size as before from (
        select p.place, octet_length(p.text) + octet_length(p.metadata)
          + case when p_vectors then 4 * coalesce(a.dimensions, 0) else 0 end as size
        from memory.archives a join memory.passages p on p.organization_id = a.organization_id and p.archive_id = a.id
        where a.organization_id = p_org and a.id = p_archive
          and p.place between first_place and p_until and p.created_at >= since
        order by p.place limit p_most) w) s
    where s.before < p_bytes order by s.place);
  return query
    select l.p, case when p_vectors then (
      select t.embedding from memory.search_texts t
      where t.organization_id = p_org and t.scope = (l.p).scope and t.place = (l.p).place) end
    from unnest(places) with ordinality o (place, n)
    cross join lateral (
      select y from memory.passages y where y.organization_id = p_org and y.archive_id = p_archive and y.place = o.place limit 1) l (p)
    order by o.n;
end $$;
