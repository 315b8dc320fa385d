-- Takes passages that are deleted out of what search keeps; of an archive that goes as a whole, the background does that.
-- What was proposed about them is outdated.
create or replace function memory.forget_passages() returns trigger language plpgsql as $$
begin
  perform memory.remove_texts(r.organization_id, r.scope, r.places) from (
    select g.organization_id, g.scope, array_agg(g.place) as places
    from gone g join memory.search_scopes s on s.organization_id = g.organization_id and s.scope = g.scope and not s.gone
    group by 1, 2) r;
  update memory.suggestions x set state = 4 /* MemorySuggestionState.OUTDATED */, decided_at = now()
  from (
    select distinct s.organization_id, s.id from gone g
    join memory.suggestions s on s.organization_id = g.organization_id and s.archive_id = g.archive_id and s.state = 1
    where g.id = any(s.passage_ids)) o
  where x.organization_id = o.organization_id and x.id = o.id;
  return null;
end $$;
create or replace trigger passages_forget after delete on memory.passages
  referencing old table as gone for each statement execute function memory.forget_passages();
