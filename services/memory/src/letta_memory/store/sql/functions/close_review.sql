-- Notes that an archive has nothing left to compare, or no room for more suggestions; whoever decides one notes that it is due again.
-- Locks: the archive, so that what is written meanwhile is seen here or notes that itself.
create or replace function memory.close_review(p_org text, p_archive text) returns void language plpgsql as $$
declare
  a memory.archives;
begin
  select * into a from memory.archives t where t.organization_id = p_org and t.id = p_archive for no key update;
  if exists (
    select from memory.search_scopes s join memory.archive_reviews r
      on r.organization_id = s.organization_id and r.archive_id = s.owner_id
    where s.organization_id = p_org and s.owner_id = p_archive and s.next_place - 1 > r.place
  ) and a.suggest_duplicates and a.most_open > (
    select count(*) from memory.suggestions x where x.organization_id = p_org and x.archive_id = p_archive and x.state = 1
      and x.kind = 1 /* MemorySuggestionKind.MERGE_PASSAGES */)
  then
    return;
  end if;
  update memory.archives t set review_due = false where t.organization_id = p_org and t.id = p_archive and t.review_due;
end $$;
