-- Makes one passage of those of a suggestion: the id, metadata and time of the oldest, the text and vector of the newest, the tags of
-- all. It stands behind the last text of the archive, so that it is compared with the others as a new one is. Status 0: done,
-- 3: one of them has changed or is gone. Locks: the caller holds the archive; the scope.
create or replace function memory.merge_passages(s memory.suggestions, p_user text, p_now timestamptz) returns smallint
language plpgsql as $$
declare
  all_of memory.passages[];
  made memory.passages;
  newest memory.passages;
  entry memory.search_texts;
  place memory.search_scopes;
  words integer;
begin
  all_of := array(
    select p from memory.passages p
    join unnest(s.passage_ids, s.passage_hashes) k (id, hash) on k.id = p.id and k.hash = sha256(convert_to(p.text, 'UTF8'))
    where p.organization_id = s.organization_id and p.archive_id = s.archive_id order by p.created_at, p.place);
  if cardinality(all_of) < cardinality(s.passage_ids) then
    return 3;
  end if;
  made := all_of[1];
  newest := all_of[cardinality(all_of)];
  select * into entry from memory.search_texts t
  where t.organization_id = s.organization_id and t.scope = newest.scope and t.place = newest.place;
  delete from memory.passages p
  where p.organization_id = s.organization_id and p.archive_id = s.archive_id and p.id = any(s.passage_ids);
  select * into place from memory.search_scopes x
  where x.organization_id = s.organization_id and x.owner_id = s.archive_id for no key update;
  made.text := newest.text;
  made.tags := (
    select array_agg(g.tag order by g.first) from (
      select t.tag, min(t.n) as first from unnest(all_of) a cross join unnest(a.tags) with ordinality t (tag, n)
      group by t.tag) g);
  made.pending := newest.pending;
  made.embedder := newest.embedder;
  made.generation := newest.generation;
  made.updated_at := p_now;
  made.last_updated_by_id := p_user;
  made.place := place.next_place;
  insert into memory.passages select (made).*;
  entry.place := made.place;
  entry.passage_id := made.id;
  entry.tags := made.tags;
  entry.created_at := made.created_at;
  entry.cell := case when place.cells > 0 then -1 else -2 end;
  entry.posted := true;
  words := memory.write_text(entry, made.text);
  update memory.search_scopes x
  set next_place = x.next_place + 1, text_count = x.text_count + 1, word_count = x.word_count + words
  where x.organization_id = s.organization_id and x.owner_id = s.archive_id;
  update memory.archives a set passage_count = a.passage_count - cardinality(all_of) + 1
  where a.organization_id = s.organization_id and a.id = s.archive_id;
  insert into memory.tombstones (organization_id, id, created_at)
  select s.organization_id, g.id, g.created_at from unnest(all_of) g where g.id <> made.id
  on conflict (organization_id, id) do update set deleted_at = now();
  return 0;
end $$;
