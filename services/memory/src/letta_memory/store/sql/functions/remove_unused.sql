-- Removes the passage of a suggestion, if it is as it was and no search has returned it since. Status 0: done, 3: it has changed, was
-- used or is gone. Locks: the caller holds the archive; the scope.
create or replace function memory.remove_unused(s memory.suggestions) returns smallint language plpgsql as $$
begin
  perform from memory.passages p
  where p.organization_id = s.organization_id and p.archive_id = s.archive_id and p.id = s.passage_ids[1]
    and sha256(convert_to(p.text, 'UTF8')) = s.passage_hashes[1]
    and not exists (
      select from memory.passage_uses u where u.organization_id = s.organization_id and u.archive_id = s.archive_id
        and u.passage_id = p.id and u.use_count > s.use_count);
  if not found then
    return 3;
  end if;
  return case memory.delete_passage(s.organization_id, s.archive_id, s.passage_ids[1]) when 0 then 0 else 3 end;
end $$;
